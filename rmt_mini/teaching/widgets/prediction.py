"""A place to write a prediction down, which is shown again beside the outcome. Students' copies of lessons have them.

Predictions are kept in predictions.json beside the notebook, so that they outlive the kernel.
"""

import html
import json
from pathlib import Path

import ipywidgets

from rmt_mini.files import write_whole
from rmt_mini.report.plots import Marked

KEPT = Path("predictions.json")


def _kept() -> dict[str, str]:
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


class Prediction(ipywidgets.Textarea):  # type: ignore[misc]  # ipywidgets has no annotations
    """A text field that keeps what is written in it under a name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            _kept().get(name, ""),
            description="I predict",
            placeholder="write it down before you run the next cell",
            continuous_update=False,
            layout={"width": "auto", "max_width": "52em"},
        )
        self.name = name
        self.observe(self._keep, names="value")

    def _keep(self, _: object) -> None:
        write_whole(KEPT, json.dumps(_kept() | {self.name: self.value}, indent=1) + "\n")


def outcome(name: str) -> Marked:
    """Show again what was predicted."""
    said = _kept().get(name, "").strip()
    words = (
        f"You predicted: {said}"
        if said
        else "You wrote no prediction down. Look above, and write one before you read on."
    )
    return Marked(f"<b>{html.escape(words)}</b>", words, role="group")
