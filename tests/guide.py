"""Keep docs/instructor.md up to date, and measure what lessons take.

    python -m tests.guide                              # writes the parts of the guide between markers
    python -m tests.guide --measure FILE --machine M   # runs every lesson; data/lessons.json is the result

The generated parts are what each lesson takes, and the answers of the quiz.
"""

import argparse
import json
import logging
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

from docs.make.slides import GUIDE
from rmt_mini.errors import UserError, logger
from rmt_mini.files import require_file_name, write_keeping, write_whole
from rmt_mini.report.markdown import macro
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.lessons import FOLDER, lessons, read_notebook
from rmt_mini.teaching.quiz import question_sheet
from tests.lessons import run

HEAD = r"\A# (.+)\n+\*\*(\d+) minutes\*\*, exercises (\d+) more"
OF_SET = re.compile(r"About \*\*(\d+) minutes")


def words_of(path: Path) -> str:
    """Return the Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")


def cost_table() -> str:
    """Return what each lesson takes as Markdown: a learner's minutes, a machine's seconds and megabytes."""
    measured = json.loads(recorded("lessons.json").read_text(encoding="utf-8"))
    heads = {path: read_notebook(path).cells[0].source for path in lessons()}
    found = {path: re.findall(HEAD, head)[0] for path, head in heads.items()}
    sets = {path.stem: int(OF_SET.findall(words_of(path))[0]) for path in lessons(FOLDER / "exercises")}
    return macro("tables.md.j2", "lessons", found, sets, measured)


def guide(text: str) -> str:
    """Return the instructor guide with both generated parts replaced; a UserError if their markers are missing."""
    for name, part in (("lessons", cost_table()), ("quiz", question_sheet(answers=True))):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pieces = re.split(f"(?<={begin}).*(?={end})", text, flags=re.DOTALL)
        if len(pieces) != 2:
            raise UserError(f"the guide needs {begin} and {end} after it, once each")
        text = f"\n\n{part.strip()}\n\n".join(pieces)
    return text


def main() -> None:
    """Write the guide, or with --measure what the notebooks named, or all lessons, take."""
    parser = argparse.ArgumentParser(prog="python -m tests.guide", description="Keep docs/instructor.md up to date.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="with --measure: all lessons where none is named")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="write seconds and peak memory here, no guide")
    parser.add_argument("--machine", default="", help="with --measure: the machine in words, and what else ran on it")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if not given.measure:
            return write_whole(GUIDE, guide(GUIDE.read_text(encoding="utf-8")))
        require_file_name(given.measure)
        rows = {}
        for path in given.notebooks or lessons():
            _, seconds, peak = run(path)
            logger.info("%s: %.0f s, %.0f MB", path.name, seconds, peak)
            rows[path.stem] = {"seconds": round(seconds, 1), "peak_memory_mb": round(peak)}
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    versions = {name: version(name) for name in ("torch", "transformers", "ipykernel")}
    made = {"date": f"{date.today()}", "machine": given.machine, "versions": versions, "lessons": rows}
    write_keeping(given.measure, json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
