"""A prediction is kept, and shown beside the outcome."""

import json
import re
from pathlib import Path

import pytest

from rmt_mini.errors import UserError
from rmt_mini.teaching.lessons import FOLDER, lessons, read_notebook
from rmt_mini.teaching.release import lesson_copy, release_lessons
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


def test_a_class_gets_all_lessons_and_what_was_typed_is_kept(tmp_path: Path) -> None:
    made = release_lessons(tmp_path)
    assert [path.name for path in made] == [path.name for path in lessons()]
    made[3].write_text("typed", encoding="utf-8")
    assert release_lessons(tmp_path) == [made[3]]
    assert (tmp_path / "old" / f"{made[3].stem}.old-1.ipynb").read_text(encoding="utf-8") == "typed"
    with pytest.raises(UserError, match="holds the lessons themselves"):
        release_lessons(FOLDER)


@pytest.mark.parametrize("path", lessons(), ids=lambda path: path.stem)
def test_a_students_lesson_has_a_field_for_each_prediction_and_folds_what_explains_it(path: Path) -> None:
    lesson, made = read_notebook(path), lesson_copy(read_notebook(path), path.stem)
    words = [cell.source for cell in made.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    asked = sum(cell.cell_type == "markdown" and "**Predict" in cell.source for cell in lesson.cells)
    fields = [source for source in code if source.startswith("Prediction(")]
    assert len({*fields}) == len(fields) == asked
    outcomes = [source for source in code if source.startswith("outcome(")]
    assert len(outcomes) == len({*outcomes}) >= asked - 1
    assert {source.replace("outcome", "Prediction") for source in outcomes} <= {*fields}
    explained = sum(cell.source.count("**Explain.**") for cell in lesson.cells if cell.cell_type == "markdown")
    assert sum(source.count("<summary>Explain</summary>") for source in words) == explained
    assert not any("**Explain.**" in source for source in words)
    for source in words:
        assert source.count("<details>") == source.count("</details>")
    kept = "\n".join(cell.source for cell in lesson.cells).replace("**Explain.** ", "")
    assert {*re.findall(r"\w+", kept)} <= {*re.findall(r"\w+", "\n".join(cell.source for cell in made.cells))}
    assert not any(cell.get("outputs") for cell in made.cells)
