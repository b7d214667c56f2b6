"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

ESCAPED = "backslashreplace"  # a file name that is not UTF-8 has lone surrogates; JSON reads \udcXX back


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all: to a temporary file beside it, then renamed."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", errors=ESCAPED) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
