"""``python -m rmt_mini`` is the command ``rmt-mini``."""

from rmt_mini.cli import main

main()
