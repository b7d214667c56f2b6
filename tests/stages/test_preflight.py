"""The pre-flight: what it predicts is what the first steps then show."""

from typing import Any

import pytest
import torch

from rmt_mini.engine.text import format_for
from rmt_mini.files import Predicted, Preflight, SeenTier
from rmt_mini.method import TIERS
from rmt_mini.records import Judged, Position, Rollout
from rmt_mini.stages import preflight as room
from rmt_mini.stages.preflight import agreement, groups_seen, preflight, signal_by_tier
from tests.stages.tiny import ARROWS, closing, small, texts_for


def judged(tier: int, match: float) -> Judged:
    return Judged(Rollout(Position(0, 1, tier, 0.0), 4, (), True, (1,), ()), match, 0.0, match, 0.0)


def test_signal_is_counted_by_group_and_tier() -> None:
    groups = [(0, (1, 1, 1)), (0, (1, 0, 1)), (2, (0, 0, 0)), (2, (0, 0, 1)), (2, (1, 0, 0))]
    found = signal_by_tier(groups_seen([judged(tier, match) for tier, matches in groups for match in matches], 3))
    assert {name: one.model_dump() for name, one in found.items()} == {
        "easy": {"groups": 2, "signal_groups": 0.5},
        "medium": {"groups": 0, "signal_groups": None},
        "hard": {"groups": 3, "signal_groups": pytest.approx(2 / 3)},
    }


def test_shares_are_those_of_the_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[list[Rollout]] = []
    real = room.roll_out

    def watched(*arguments: Any) -> list[Rollout]:
        found = real(*arguments)
        groups.extend(found[start : start + 4] for start in range(0, len(found), 4))
        return found

    monkeypatch.setattr(room, "roll_out", watched)
    policy, config = closing(), small()
    texts = texts_for(policy, config, ARROWS)
    state = torch.random.get_rng_state()
    found = preflight(policy, texts, config, positions=12)
    assert torch.equal(state, torch.random.get_rng_state())
    form = format_for(policy, config)
    for tier, row in enumerate(found.tiers.values()):
        asked = [group for group in groups if group[0].position.tier == tier]
        right = [[form.judge(r.answer, texts[r.position.trunk].ids, r.position.index) for r in g] for g in asked]
        assert row.positions == len(asked) == 4
        assert row.accuracy == pytest.approx(sum(map(sum, right)) / 16)
        assert row.pass_at_g == pytest.approx(sum(map(max, right)) / 4)
        assert row.signal_groups == pytest.approx(sum(len(set(one)) > 1 for one in right) / 4)
    everything = [rollout for group in groups for rollout in group]
    assert found.closed_share == pytest.approx(sum(r.closed for r in everything) / len(everything))
    assert found.thought_length == pytest.approx(sum(r.length for r in everything) / len(everything))
    assert {r.budget for r in everything} == {found.budget} == {6}
    assert sum(row.signal_groups for row in found.tiers.values()) > 0  # else all of this would be of zeros


def test_advice_names_what_is_missing_and_only_that() -> None:
    whole = Predicted(positions=30, accuracy=0.5, pass_at_g=0.9, signal_groups=0.4)
    fine = {"signal_groups": 0.1, "closed_share": 0.2, "thought_length": 1.0, "tiers": dict.fromkeys(TIERS, whole)}
    absent = {**fine["tiers"], "hard": Predicted(positions=0, accuracy=None, pass_at_g=None, signal_groups=None)}
    for change, words in (
        ({}, None),
        ({"signal_groups": 0.09}, "only 9% of groups carry a match signal"),
        ({"closed_share": 0.19}, "only 19% of thoughts close themselves"),
        ({"thought_length": 0.9}, "thoughts have collapsed to nothing"),
        ({"tiers": absent}, "no position is hard"),
    ):
        advice = room._advice(Preflight.model_construct(**{**fine, **change}), small())
        assert [line.partition(":")[0] for line in advice] == ([words] if words else [])
    short = Preflight.model_construct(**{**fine, "closed_share": 0.0, "thought_length": 0.0})
    assert room._advice(short, small(use_thinking=False)) == []  # nothing is to close there
    assert [("length reward" in line) for line in room._advice(short, small(use_budget=False))] == [False, False]


@pytest.mark.parametrize(
    ("predicted", "seen", "agrees"),
    [((0.5, 30), (0.4, 75), True), ((0.9, 30), (0.2, 75), False), ((None, 0), (0.2, 75), None)],
)
def test_a_prediction_agrees_within_chance(
    predicted: tuple[float | None, int], seen: tuple[float, int], agrees: bool | None
) -> None:
    share, count = predicted
    before = Predicted(positions=count, accuracy=None, pass_at_g=None, signal_groups=share)
    assert agreement(before, SeenTier(groups=seen[1], signal_groups=seen[0])) is agrees
