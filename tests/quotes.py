"""Keep docs/replication.md up to date: ``python -m tests.quotes``.

The page quotes recorded reports. A quotation is what stands between ``<!-- REPORT: HEADING -->`` and ``<!-- end -->``:
the section under that heading of ``data/REPORT/report.md``, or, for the heading "claims", the list above the first.
"""

import re
from pathlib import Path

from rmt_mini.files import write_whole

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "replication.md"
QUOTED = re.compile(r"(<!-- (?!end )([\w/-]+): ([^\n]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def section(report: str, heading: str) -> str:
    """Return a section of a recorded report, its figures named as from docs/."""
    text = (ROOT / "data" / report / "report.md").read_text(encoding="utf-8")
    head, *parts = re.split(r"(?m)^## (.+)\n", text)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    found["claims"] = "\n".join(line for line in head.splitlines() if line.startswith("- "))
    return found[heading].strip().replace("](figures/", f"](../data/{report}/figures/")


def quoted(page: str) -> str:
    """Return a page with its quotations as the reports have them."""
    return QUOTED.sub(lambda found: f"{found[1]}\n{section(found[2], found[3])}\n\n{found[5]}", page)


if __name__ == "__main__":
    write_whole(PAGE, quoted(PAGE.read_text(encoding="utf-8")))
