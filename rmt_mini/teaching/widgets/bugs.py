"""The bug hunt at a glance: what one sees of a bug, the function at fault, and what its check says."""

from __future__ import annotations

import html
from dataclasses import replace

from rmt_mini.study.plots import Marked
from rmt_mini.teaching.bugs import BUGS, source, verdict
from rmt_mini.teaching.widgets.controls import Explorer, explore, switch, whole

_CODE = "background: #f4f4f4; color: #000; padding: 0.6em 0.8em; white-space: pre-wrap; line-height: 1.4"
_WITHIN = "width: 0; min-width: 100%"  # a figure shrinks to the room there is, and does not ask for its own width


def bug_report(number: int, repaired: bool) -> Marked:
    """Show a bug's symptom, the function behind it, and its check's verdict.

    Args:
        number: of the bug, from 1.
        repaired: take the function as it should be, in place of the one that was found.
    """
    found = list(BUGS.values())[number - 1]
    title = f"Bug {number}, {found.name}"
    function = found.fixed if repaired else found.buggy
    seen, said = found.seen(function), verdict(found, function)
    told = f"{title}{', repaired' if repaired else ''}: the check {said}. {seen.alt}"
    story = "With the repaired function:" if repaired else found.symptom
    picture = replace(seen, alt=told, role="img") if isinstance(seen, Marked) else replace(seen, alt=told)
    return Marked(
        f"<p><b>{html.escape(title)}.</b> {html.escape(story)}</p>"
        f'<div style="{_WITHIN}">{picture._repr_html_()}</div>'
        f'<pre style="{_CODE}">{html.escape(source(function))}</pre><p>The check <b>{html.escape(said)}</b></p>',
        told,
        role="group",  # the source is there to be read
    )


def bug_explorer() -> Explorer:
    """Go through the bugs, each as it was found or repaired."""
    return explore(bug_report, number=whole("bug", 7, 1, len(BUGS)), repaired=switch("repaired", True))
