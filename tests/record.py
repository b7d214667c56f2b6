"""Record a comparison: ``python -m tests.record runs/abacus data/abacus/comparison``.

Copied are plan, results, report and figures, as far as they are there; ``runs.tar.xz`` takes of each finished run what
a report is made of: settings, every answer, metrics and curve; of exams, settings and answers. Unpacked into a folder
beside compare.json, they let ``rmt-mini compare`` go on with the runs that are missing, or write the report again. The
comparisons of a map are recorded one by one.
"""

import hashlib
import io
import re
import shutil
import sys
import tarfile
from pathlib import Path

from rmt_mini.runs.compare import is_done

BY_HAND = {"PROVENANCE.md", "PROTOCOL.md", "TRIED.md", "README.md"}  # in data/
OF_ALL = ("over.json", "map.json", "compare.json", "comparison.json", "posttraining.json", "report.md", "figures")
OF_A_RUN = ("run.json", "evaluation.json", "answers.jsonl", "metrics.jsonl", "curve.jsonl", "samples.json")
OF_AN_EXAM = ("run.json", "evaluation.json", "answers.jsonl")


def record(folder: Path, out: Path, preset: int = 9) -> list[str]:
    """Copy and pack a comparison, or those of a map; returns the names of the runs in the archives.

    An archive is the same for the same runs; ``preset``, how hard xz tries, changes its size alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in (folder / name for name in OF_ALL):
        if path.is_dir():
            shutil.copytree(path, out / path.name, dirs_exist_ok=True)
        elif path.exists():
            text = path.read_text(encoding="utf-8").replace(f"{Path.cwd()}/", "")  # of models in folders
            (out / path.name).write_text(text, encoding="utf-8")
    if values := sorted(folder.glob("*=*")):
        return [f"{value.name}/{name}" for value in values for name in record(value, out / value.name, preset)]
    done = [path for path in sorted((folder / "runs").iterdir()) if is_done(path)]
    sat = [path for path in sorted(folder.glob("exams/*/*")) if is_done(path)]
    files = [run / name for name in OF_A_RUN for run in done]  # by name first: files that are alike stand together
    files += sorted(folder.glob("exams/*/exams.json")) + [run / name for name in OF_AN_EXAM for run in sat]
    with tarfile.open(out / "runs.tar.xz", "w:xz", preset=preset) as archive:
        for path in filter(Path.exists, files):
            text = path.read_text(encoding="utf-8")
            if path.name == "run.json":
                text = re.sub(r'"command": "\S+ ', '"command": "rmt-mini ', text).replace(f"{folder.resolve()}/", "")
                text = text.replace(f"{Path.cwd()}/", "")
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return [str(path.relative_to(folder)) for path in (*done, *sat)]


def digests(data: Path) -> dict[str, str]:
    """Return the SHA-256 digest of each recorded file; those that are written by hand, and hidden ones, have none."""
    files = sorted(path for path in data.rglob("*") if path.is_file() and path.name not in BY_HAND)
    shown = [path for path in files if not path.name.startswith(".")]
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def write_digests(data: Path) -> None:
    """Renew the table at the end of PROVENANCE.md."""
    page, rows = data / "PROVENANCE.md", [f"| `{name}` | `{digest}` |\n" for name, digest in digests(data).items()]
    text = page.read_text(encoding="utf-8")
    head = text[: text.index("| `")]
    page.write_text(head + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    print("\n".join(record(*map(Path, sys.argv[1:]))))
    write_digests(Path("data"))
