"""The trainer that lesson 7b writes: short, on its own, equal to the package, and caught where it is not."""

import ast
import contextlib
import io
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rmt_mini import method
from rmt_mini.config import preset
from rmt_mini.teaching.lessons import FOLDER, read_notebook

CELLS = read_notebook(FOLDER / "07b_rmt_in_150_lines.ipynb").cells
FIRST, AFTER = "## The settings, the model and the text", "## The same numbers as the package"
MOST_LINES = 150
OURS = {("rmt_mini.engine.model", "load_policy"), ("rmt_mini.worlds.corpus", "load_corpus")}


def between(start: str, end: str) -> list[str]:
    """Return the code cells after the heading ``start`` and before the heading ``end``."""
    places = [n for heading in (start, end) for n, cell in enumerate(CELLS) if heading in cell.source.splitlines()]
    first, last = places
    return [cell.source for cell in CELLS[first:last] if cell.cell_type == "code"]


TRAINER, (PACKAGE, COMPARE) = between(FIRST, AFTER), between(AFTER, "## How much faster is the package?")
PACKAGE_STEP, RECORDS = PACKAGE.rsplit("\n\n", 1)


def ran(source: str, names: dict[str, Any]) -> str:
    """Run a cell; return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(source, names)
    return printed.getvalue()


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Return what the trainer's cells define, run by themselves for no step, and the package's step."""
    found: dict[str, Any] = {}
    for source in TRAINER:
        ran(source.replace("for t in range(4)", "for t in range(0)"), found)
    ran(PACKAGE_STEP, found)
    return found


def imports(source: str) -> set[tuple[str, str]]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return found


def test_the_trainer_is_short_and_takes_only_model_and_text_from_the_package() -> None:
    assert 100 < sum(len(source.splitlines()) for source in TRAINER) <= MOST_LINES
    imported = set[tuple[str, str]]().union(*map(imports, TRAINER))
    assert {one for one in imported if one[0].startswith("rmt_mini")} == OURS
    assert {module.split(".")[0] for module, _ in imported} == {"collections", "rmt_mini", "torch"}
    places = [n for n, cell in enumerate(CELLS) if cell.source in TRAINER]
    assert all(CELLS[n - 1].cell_type == "markdown" for n in places)
    assert [b - a for a, b in pairwise(places)] == [2] * (len(places) - 1)


def test_its_settings_and_formulas_are_those_of_the_preset(names: dict[str, Any]) -> None:
    config = preset("micro")
    for t in range(config.steps + 1):
        assert names["budget_at"](t) == method.budget_of(config, t)
        assert names["tier_probabilities"](t) == pytest.approx(method.probabilities_of(config, t))
    earned, given = [], []
    for length in range(45):
        for answer in (7, 8):
            one = names["Rollout"]([], [0] * length, True, [], answer)
            earned.append(names["reward"](one, 7, 20))
            match, by_length = float(answer == 7), float(method.length_reward(length, 20))
            given.append(method.total_reward(match, by_length, config.length_weight, config.length_if_correct))
    assert earned == pytest.approx(given)
    expected = method.group_advantages(torch.tensor(given).double(), len(given), scale=config.scale_advantages)
    assert names["advantages_of"](earned) == pytest.approx(expected.tolist())


def scripted(tokens: list[int], read: list[int]) -> Any:
    """Return a model that says ``tokens`` one after another, and notes what it reads."""
    said = iter(tokens)

    def model(input_ids: Any, past_key_values: Any, use_cache: bool) -> Any:
        read.extend(input_ids[0].tolist())
        logits = torch.full((1, input_ids.shape[1], 500), -torch.inf)
        logits[0, -1, next(said)] = 0.0
        return SimpleNamespace(logits=logits, past_key_values="cache")

    return model


@pytest.mark.parametrize("length", [0, 3, 5, 6])
def test_a_thought_ends_by_itself_or_at_the_cap_and_every_token_is_read_once(
    names: dict[str, Any], length: int
) -> None:
    close, read = names["CLOSE"], list[int]()
    model = scripted([*range(10, 10 + length), close, 7], read)
    one = names["roll_out"](model, [1, 2, 3], 3, torch.Generator())
    assert one.thought == [*range(10, 10 + length)]
    assert one.closed == (length < 6)  # the cap is twice the budget
    assert one.answer == 7
    assert read == [*one.before, *one.thought, *one.after]
    assert one.before[:3] == [1, 2, 3]
    assert one.after[0] == close
    assert one.after[-3:] == [1, 2, 3]


def test_only_what_was_sampled_takes_the_rl_loss(names: dict[str, Any]) -> None:
    rollouts = [names["Rollout"]([1, 2], [3, 4], closed, [names["CLOSE"], 5, 6], 7) for closed in (True, False)]
    with torch.no_grad():
        log_p, sampled = names["sampled_logprobs"](names["ours"], rollouts)
    assert log_p.shape == sampled.shape == (2, 7)
    assert sampled.int().tolist() == [[0, 1, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 1]]


MISTAKES = {  # what is broken, and what must differ then
    "mean over rollouts": ("/ sampled.sum()", "/ len(rollouts)", {"L_RL", "gradient"}),
    "C is not left out": ("if (n, i) not in chosen", "", {"L_NTP", "gradient"}),
    "off by one": ("own[i - 1, ids[i]]", "own[i - 1, ids[i - 1]]", {"L_NTP", "gradient"}),
    "no detach": ("log_p - log_p.detach()", "log_p - log_p", {"gradient"}),
    "wrong answers earn length": (
        "LENGTH_WEIGHT * match * by",
        "LENGTH_WEIGHT * by",
        {"rewards", "advantages", "L_RL"},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_finds_a_mistake(names: dict[str, Any], mistake: str) -> None:
    old, new, must_differ = MISTAKES[mistake]
    own = dict(names)
    for source in TRAINER[:-1]:
        if old in source:
            ran(source.replace(old, new), own)
    for source in (RECORDS, COMPARE):
        ran(source, own)
    differing = {one.split(" of ")[0] for one in own["differing"]}
    assert must_differ <= differing
    assert own["same"] == (True, True, True)
