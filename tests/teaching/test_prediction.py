"""A prediction is kept, and shown beside the outcome."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmt_mini.teaching.widgets.prediction import KEPT, Prediction, outcome


def test_a_prediction_outlives_its_field_and_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no prediction" in outcome("03-1").alt
    Prediction("03-1").value = "<b>half</b>, é"
    Prediction("03-2").value = "more"
    assert json.loads((tmp_path / KEPT).read_text(encoding="utf-8")) == {"03-1": "<b>half</b>, é", "03-2": "more"}
    assert Prediction("03-1").value == "<b>half</b>, é"
    shown = outcome("03-1")
    assert shown.alt == "You predicted: <b>half</b>, é"
    assert "<b>half" not in shown._repr_html_()
