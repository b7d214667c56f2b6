"""Text files that are written whole or not at all, and never over a user's own."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from pathlib import Path

from rmt_mini.errors import UserError

logger = logging.getLogger(__name__)

ESCAPED = "backslashreplace"  # a file name that is not UTF-8 has lone surrogates; JSON reads \udcXX back
LOCK = ".lock"
UNBORN = (LOCK, ".run.json.")  # all that a process can leave which was killed before its run.json stood


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all: to a temporary file beside it, then renamed.

    A file that is replaced hands on its rights; a link to a file stays one, and its file is replaced.
    """
    to_no_device = path.is_symlink() and (path.is_file() or not path.exists())
    _replace(path.resolve() if to_no_device else path, text)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8", errors=ESCAPED) as file:
            if path.is_file():
                shutil.copymode(path, scratch)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def require_file_name(path: Path) -> None:
    """Refuse to write a file where a folder or a device is.

    Raises:
        UserError: naming it.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{str(path)!r} is a folder or a device; give the name of a file")


def write_keeping(path: Path, text: str, old: Path | None = None) -> bool:
    """Write a text file whole, and keep the file that it replaces; the log says under which name.

    A link is replaced, and the file that it leads to is left as it is.

    Args:
        path: of the file; its folder is made if it is missing.
        text: its new content.
        old: folder for the file that is replaced; that of ``path`` if None.

    Returns:
        Whether the file was written; it is not if it has this content already.

    Raises:
        UserError: as ``require_file_name``.
    """
    require_file_name(path)
    if path.exists():
        if path.read_text(encoding="utf-8", errors=ESCAPED) == text:
            return False
        folder = old or path.parent
        folder.mkdir(parents=True, exist_ok=True)
        names = (folder / f"{path.stem}.old-{number}{path.suffix}" for number in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        shutil.copy2(path, kept)
        logger.info("%s was there already; the old file is kept as %s", path, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text)
    return True


def require_free(path: Path) -> None:
    """Refuse a folder that holds anything: a run is never overwritten."""
    if path.exists() and (not path.is_dir() or not all(one.name.startswith(UNBORN) for one in path.iterdir())):
        raise UserError(f"output folder {str(path)!r} is in use; choose another with --out, or delete it")
