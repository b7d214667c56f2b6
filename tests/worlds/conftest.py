"""What tests of several modules ask of."""

import pytest

from rmt_mini.worlds.questions import Question, load_questions


@pytest.fixture(scope="session")
def champ() -> dict[str, Question]:
    """All questions of CHAMP by their ids: reading the answers takes seconds."""
    pytest.importorskip("math_verify")
    return {question.id.removeprefix("P_"): question for question in load_questions("champ", 1000, seed=0)}
