"""What the instructor guide takes from elsewhere, so that it cannot go stale: ``python -m rmt_mini.teaching.guide``.

``docs/instructor.md`` is written by hand but for two parts between markers: what each lesson takes, out of
``data/lessons.json`` (``teaching.lessons --measure`` makes it), and the answers of the quiz. A test fails where they
are not what this room would write.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from rmt_mini.errors import UserError
from rmt_mini.files import write_whole
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.cost import Cost, costs_read
from rmt_mini.teaching.lessons import FOLDER, lessons, read_notebook
from rmt_mini.teaching.quiz import answer_sheet

logger = logging.getLogger(__name__)

GUIDE = FOLDER.parent / "docs" / "instructor.md"
MOST_SECONDS, MOST_MEGABYTES = 60, 2000  # what a lesson may take on two cores


def replaced(text: str, name: str, part: str) -> str:
    r"""Put a part between its markers.

    Raises:
        UserError: if the markers are not there, once each and in order.

    Example:
        >>> replaced("a <!-- x: begin -->old<!-- x: end --> b", "x", "new")
        'a <!-- x: begin -->\n\nnew\n\n<!-- x: end --> b'
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f"the guide needs {begin} and behind it {end}, once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{part.strip()}\n\n{end}{after}"


def title_and_minutes(path: Path) -> tuple[str, int]:
    """Read a lesson's title and how many minutes it says that it takes.

    Raises:
        UserError: if it says neither.
    """
    first = read_notebook(path).cells[0].source
    found = re.match(r"# (.+)\n+\*\*(\d+) minutes\*\*", first)
    if not found:
        raise UserError(f"{path.name} does not begin with a title and its minutes")
    return found[1], int(found[2])


def cost_table(measured: Path) -> str:
    """Return what each lesson takes as Markdown: a learner's minutes, a machine's seconds and megabytes.

    Raises:
        UserError: if a lesson was not measured.
    """
    costs, told = costs_read(measured), json.loads(measured.read_text(encoding="utf-8"))
    rows = ["| lesson | minutes with a class | seconds to run it all | peak memory, MB |", "|---|---|---|---|"]
    total = 0
    for path in lessons():
        if path.stem not in costs:
            raise UserError(f"{path.stem} is not in {measured}; run python -m rmt_mini.teaching.lessons --measure")
        title, minutes = title_and_minutes(path)
        total += minutes
        cost = costs[path.stem]
        rows.append(
            f"| [{title}](../notebooks/{path.name}) | {minutes} | {cost.seconds:.0f} | {cost.peak_memory_mb:.0f} |"
        )
    rows.append(f"| together | {total} | {sum(one.seconds for one in costs.values()):.0f} | |")
    return "\n".join([*rows, "", f"Measured {told['date']}: {told['machine']}. {_judged(costs)}"])


def _judged(costs: dict[str, Cost]) -> str:
    slow = [f"{name} ({one.seconds:.0f} s)" for name, one in costs.items() if one.seconds > MOST_SECONDS]
    large = [
        f"{name} ({one.peak_memory_mb:.0f} MB)" for name, one in costs.items() if one.peak_memory_mb > MOST_MEGABYTES
    ]
    over = slow + large
    aim = f"A lesson is to take no more than {MOST_SECONDS} s and {MOST_MEGABYTES} MB on two cores of its own"
    return f"{aim}; here {', '.join(over)} took more." if over else f"{aim}; here none took more."


def generated(text: str) -> str:
    """Return the guide with both parts as they ought to be."""
    text = replaced(text, "lessons", cost_table(recorded("lessons.json")))
    return replaced(text, "quiz", answer_sheet())


def main() -> None:
    """Bring the guide up to date."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    before = GUIDE.read_text(encoding="utf-8")
    after = generated(before)
    write_whole(GUIDE, after)
    logger.info("%s: %s", GUIDE.name, "as it was" if after == before else "brought up to date")


if __name__ == "__main__":
    main()
