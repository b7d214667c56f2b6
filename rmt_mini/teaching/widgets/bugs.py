"""The bug hunt at a glance: what one sees of a bug, the function at fault, and what its check says."""

from __future__ import annotations

import html

from rmt_mini.study.plots.of_text import Marked, Stack, stacked
from rmt_mini.teaching.bugs import BUGS, source, verdict
from rmt_mini.teaching.widgets.controls import Explorer, choice, explore

_CODE = "background: #f4f4f4; color: #000; padding: 0.6em 0.8em; overflow-x: auto; line-height: 1.4"


def bug_report(bug: str, version: str) -> Stack:
    """Show a bug's symptom, the function behind it, and its check's verdict.

    Args:
        bug: name of one of BUGS.
        version: "as found" or "repaired".
    """
    found, title = BUGS[bug], bug[0].upper() + bug[1:]
    function = found.buggy if version == "as found" else found.fixed
    said, code = verdict(found, function), source(function)
    body = (
        f"<p><b>{html.escape(title)}.</b> {html.escape(found.symptom)}</p>"
        f'<pre style="{_CODE}">{html.escape(code)}</pre><p>The check <b>{html.escape(said)}</b></p>'
    )
    told = f"{title}, {version}: the check {said}."
    return stacked(found.seen(function), Marked(body, told, role="group"))


def bug_explorer() -> Explorer:
    """Choose a bug, and whether it stands as it was found."""
    return explore(bug_report, bug=choice("bug", list(BUGS)), version=choice("function", ["as found", "repaired"]))
