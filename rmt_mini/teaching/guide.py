"""Bring the generated parts of the instructor guide up to date: ``python -m rmt_mini.teaching.guide``.

``docs/instructor.md`` is written by us but for two parts between markers: what each lesson takes, out of
``data/lessons.json`` (``teaching.lessons --measure`` makes it), and the answers of the quiz. A test compares them.
"""

from __future__ import annotations

import json
import re

from rmt_mini.errors import UserError
from rmt_mini.files import write_whole
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.cost import costs_read
from rmt_mini.teaching.lessons import FOLDER, lessons, read_notebook
from rmt_mini.teaching.quiz import answer_sheet

GUIDE = FOLDER.parent / "docs" / "instructor.md"


def cost_table() -> str:
    """Return what each lesson takes as Markdown: a learner's minutes, a machine's seconds and megabytes."""
    measured = recorded("lessons.json")
    costs, said = costs_read(measured), json.loads(measured.read_text(encoding="utf-8"))
    rows = ["| lesson | minutes with a class | seconds to run it all | peak memory, MB |", "|---|---|---|---|"]
    total = 0
    for path in lessons():
        cost, head = costs[path.stem], re.match(r"# (.+)\n+\*\*(\d+) minutes\*\*", read_notebook(path).cells[0].source)
        if not head:
            raise UserError(f"{path.name} does not begin with a title and its minutes")
        total += int(head[2])
        took = f"{cost.seconds:.0f} | {cost.peak_memory_mb:.0f}"
        rows.append(f"| [{head[1]}](../notebooks/{path.name}) | {head[2]} | {took} |")
    rows.append(f"| together | {total} | {sum(one.seconds for one in costs.values()):.0f} | |")
    return "\n".join([*rows, "", f"Measured {said['date']}: {said['machine']}."])


def generated(text: str) -> str:
    """Return the guide with both parts replaced; raise a UserError where their markers are missing."""
    for name, part in (("lessons", cost_table()), ("quiz", answer_sheet())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pieces = re.split(f"(?<={begin}).*(?={end})", text, flags=re.DOTALL)
        if len(pieces) != 2:
            raise UserError(f"the guide needs {begin} and {end} after it, once each")
        text = f"\n\n{part.strip()}\n\n".join(pieces)
    return text


if __name__ == "__main__":
    write_whole(GUIDE, generated(GUIDE.read_text(encoding="utf-8")))
