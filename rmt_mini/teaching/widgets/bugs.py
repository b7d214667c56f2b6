"""The bug hunt at a glance: what one sees of a bug, the function at fault, and what its check says."""

from __future__ import annotations

import html

from rmt_mini.report.plots import Marked, Stack, stacked
from rmt_mini.teaching.bugs import BUGS, source, verdict
from rmt_mini.teaching.widgets.controls import Explorer, explore, switch, whole

_CODE = "background: #f4f4f4; color: #000; padding: 0.6em 0.8em; white-space: pre-wrap; line-height: 1.4"


def bug_report(number: int, repaired: bool) -> Stack:
    """Show a bug's symptom, the function behind it, and its check's verdict.

    Args:
        number: of the bug, from 1.
        repaired: take the function as it should be, in place of the one that was found.
    """
    found = list(BUGS.values())[number - 1]
    function = found.fixed if repaired else found.buggy
    title, story = f"Bug {number}, {found.name}.", "With the repaired function:" if repaired else found.symptom
    said = verdict(found, function)
    shown = f'<pre style="{_CODE}">{html.escape(source(function))}</pre><p>The check <b>{html.escape(said)}</b></p>'
    return stacked(
        Marked(f"<b>{html.escape(title)}</b> {html.escape(story)}", f"{title} {story}"),
        found.seen(function),
        Marked(shown, f"The check {said}.", role="group"),  # the source is there to be read
    )


def bug_explorer() -> Explorer:
    """Go through the bugs, each as it was found or repaired."""
    return explore(bug_report, number=whole("bug", 7, 1, len(BUGS)), repaired=switch("repaired", True))
