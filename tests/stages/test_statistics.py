from __future__ import annotations

import json

import numpy as np
import pytest

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer, Position
from rmt_mini.stages.statistics import RESAMPLES, interval, of_sort, resample, sorts_in, summarize, summarize_all


def answer(
    document: int,
    tier: int,
    match: float,
    plain: float = 0.0,
    length: int = 0,
    closed: bool = True,
    sort: str = "",
    run: int = 0,
) -> Answer:
    position = Position(document, 1, tier, 0.0)
    return Answer(position, plain, match, length, closed, sort, run)


def matches(answers: list[Answer]) -> np.ndarray:
    return np.array([one.match for one in answers])


# easy 2 of 4, medium 1 of 1, hard 0 of 3: the mean of tiers is 1/2, that of positions 3/8
HAND = [
    answer(0, 0, 1.0), answer(0, 0, 0.0), answer(0, 2, 0.0), answer(0, 1, 1.0),
    answer(1, 0, 1.0), answer(1, 0, 0.0), answer(1, 2, 0.0), answer(1, 2, 0.0),
]  # fmt: skip


def test_the_average_is_that_of_tiers_not_of_positions() -> None:
    found = interval(HAND, matches(HAND))
    assert found["mean"] == pytest.approx((2 / 4 + 1 / 1 + 0 / 3) / 3)
    assert found["n"] == 8
    assert [interval(HAND, matches(HAND), [tier])["mean"] for tier in range(3)] == [0.5, 1.0, 0.0]
    assert [interval(HAND, matches(HAND), [tier])["n"] for tier in range(3)] == [4, 1, 3]


def test_the_interval_holds_the_mean_and_narrows_with_more_documents() -> None:
    def made(documents: int) -> list[Answer]:
        rng = np.random.default_rng(0)
        return [answer(d, tier, float(rng.random() < 0.4)) for d in range(documents) for tier in (0, 1, 2)]

    few, many = (interval(answers, matches(answers)) for answers in (made(12), made(300)))
    for found in (few, many):
        assert 0 <= found["low"] < found["mean"] < found["high"] <= 1
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])
    assert interval(made(12), matches(made(12))) == few  # resampled the same way each time


def test_documents_are_resampled_not_positions() -> None:
    """Two documents of a hundred equal answers each say as little as two answers."""
    answers = [answer(d, 0, float(d)) for d in range(2) for _ in range(100)]
    found = interval(answers, matches(answers), [0])
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.0, 1.0)


def test_no_answer_and_a_missing_tier() -> None:
    assert interval([], np.array([])) == {"mean": None, "low": None, "high": None, "n": 0}
    answers = [answer(d, 2 * (d % 2), float(d % 2)) for d in range(10)]
    assert interval(answers, matches(answers), [1]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert interval(answers, matches(answers))["mean"] == 0.5  # of the two tiers there are


@pytest.mark.filterwarnings("error")
def test_a_tier_of_a_few_documents_has_an_interval_that_json_can_hold() -> None:
    answers = [answer(d, 0, float(d % 2)) for d in range(10)] + [answer(0, 2, 1.0), answer(1, 2, 0.0)]
    found = interval(answers, matches(answers), [2])
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.0, 1.0)
    once = [one for one in answers if one.position != Position(1, 1, 2, 0.0)]
    assert interval(once, matches(once), [2]) == {"mean": 1.0, "low": 0.0, "high": 1.0, "n": 1}
    json.dumps(summarize(answers, 4), allow_nan=False)


def test_a_summary_has_the_rows_of_the_contract() -> None:
    answers = [answer(d, d % 3, float(d % 2), plain=1.0, length=d, closed=d < 3) for d in range(6)]
    found = summarize(answers, 5)
    assert set(found) == {"ntp", "think"}
    for row in found.values():
        assert set(row) >= {"easy", "medium", "hard", "average", "thought_length"}
        for tier in ("easy", "medium", "hard", "average"):
            assert set(row[tier]) == {"accuracy", "low", "high", "n"}
    assert [found["ntp"][tier]["accuracy"] for tier in ("easy", "average")] == [1.0, 1.0]
    assert found["think"]["average"]["accuracy"] == pytest.approx(0.5)
    assert found["think"]["thought_length"] == 2.5
    assert found["think"]["closed_share"] == 0.5
    assert (found["think"]["budget"], found["ntp"]["thought_length"]) == (5, 0.0)


def test_a_sort_is_summarized_by_itself_whatever_its_tiers() -> None:
    answers = [answer(d, 0, 1.0, sort="noise", length=2) for d in range(3)]
    answers += [answer(d, 2, 0.0, plain=1.0, sort="calculable", length=10) for d in range(3)]
    answers += [answer(3, 1, 1.0, sort="calculable", length=6), answer(4, 1, 0.0)]
    assert sorts_in(answers) == ["calculable", "noise"]
    assert {one.position.tier for one in of_sort(answers, "calculable")} == {0}
    found = summarize(answers, 5)
    think, plain = found["think"]["sorts"], found["ntp"]["sorts"]
    assert think["calculable"]["accuracy"] == 1 / 4  # not the mean of its tiers, 1/2
    assert plain["calculable"]["accuracy"] == 3 / 4
    assert (think["calculable"]["n"], think["noise"]["n"]) == (4, 3)
    assert (think["calculable"]["thought_length"], think["noise"]["thought_length"]) == (9.0, 2.0)
    assert plain["noise"]["thought_length"] == 0.0
    assert "sorts" not in summarize([answer(0, 0, 1.0)], 5)["think"]


def runs(rates: tuple[float, ...], documents: int = 40) -> list[Answer]:
    """Answers of several runs to the same documents, with these shares of right ones."""
    right = [(run, d, float(d < rate * documents)) for run, rate in enumerate(rates) for d in range(documents)]
    return [answer(d, 0, match, run=run) for run, d, match in right]


def test_runs_are_resampled_too() -> None:
    alike, unlike = runs((0.5, 0.5, 0.5)), runs((0.2, 0.5, 0.8))
    (one, same, other) = (interval(found, matches(found), [0]) for found in (runs((0.5,)), alike, unlike))
    assert one["mean"] == same["mean"] == other["mean"] == 0.5
    assert (one["low"], one["high"]) != (0.5, 0.5)
    # three runs that answer alike say no more than one, since they ask about the same documents
    assert same["high"] - same["low"] == pytest.approx(one["high"] - one["low"], abs=0.02)
    assert other["high"] - other["low"] > 1.5 * (same["high"] - same["low"])


def test_the_crossed_interval_covers_the_truth() -> None:
    """Of worlds with a known mean, with luck of documents and of runs, about 95 in 100 intervals hold it."""
    source = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        of_document, of_run = source.normal(0, 1, 20), source.normal(0, 1, 20)
        answers = [answer(d, 0, of_document[d] + of_run[r], run=r) for r in range(20) for d in range(20)]
        found = interval(answers, matches(answers), [0])
        held += found["low"] <= 0 <= found["high"]
    assert 0.88 <= held / 100 <= 0.99


def test_all_measurements_together() -> None:
    def asked(match: float, plain: float, length: int) -> list[Answer]:
        return [
            answer(d, d % 3, match, plain, length + d % 2, sort="calculable" if d < 6 else "noise") for d in range(12)
        ]

    measured = {
        "before": (8, asked(0.0, 1.0, 20)),
        "cold_start": (8, asked(0.5, 1.0, 12)),
        "after": (4, asked(1.0, 0.5, 5)),
    }
    found = summarize_all(measured)
    assert [found[when]["think"]["budget"] for when in measured] == [8, 8, 4]
    assert {name: gain["difference"] for name, gain in found["gain"].items()} == {
        "think_after_minus_before": 1.0,
        "think_after_minus_cold_start": 0.5,
        "think_minus_ntp_after": 0.5,
        "think_after_minus_ntp_before": 0.0,
        "calculable_think_after_minus_ntp_before": 0.0,
        "noise_think_after_minus_ntp_before": 0.0,
    }
    assert found["length_change"] == {
        name: {"difference": -15.0, "low": -15.0, "high": -15.0} for name in ("all", "calculable", "noise")
    }
    json.dumps(found, allow_nan=False)
    one = {when: (4, [answer(0, 0, 1.0, length=length)]) for when, length in (("before", 9), ("after", 3))}
    assert summarize_all(one)["length_change"]["all"] == {"difference": -6.0, "low": None, "high": None}


def test_two_documents_have_a_spread_and_one_has_the_bounds() -> None:
    answers = [answer(document, 0, 0.0) for document in (0, 1)]
    found = interval(answers, np.array([-0.2, 0.4]))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.1, -0.2, 0.4))
    alone = interval([answer(0, 0, 0.0), answer(0, 0, 0.0)], np.array([-0.2, 0.4]))
    assert (alone["low"], alone["high"]) == (-1.0, 1.0)
    times = {"before": 1, "after": 3}
    measured = {when: (5, [answer(d, 0, 0.0, length=n * (d + 1)) for d in (0, 1)]) for when, n in times.items()}
    assert summarize_all(measured)["length_change"]["all"] == {"difference": 3.0, "low": 2.0, "high": 4.0}


def test_the_interval_holds_95_of_100_resamples_of_each_value() -> None:
    rng = np.random.default_rng(1)
    answers = [answer(document, tier, 0.0) for document in range(40) for tier in range(3)]
    values = rng.random((2, len(answers)))
    means, drawn = resample(answers, values, (0, 1, 2))
    assert means == pytest.approx(values.mean(1))
    assert drawn.shape == (2, RESAMPLES)
    assert drawn.mean(1) == pytest.approx(means, abs=0.01)
    for value, own in zip(values, drawn, strict=True):
        found = interval(answers, value)
        assert [found["low"], found["high"]] == pytest.approx(np.percentile(own, [2.5, 97.5]).tolist())


def test_a_row_averages_all_tiers_and_plain_answers_take_no_thought() -> None:
    answers = [answer(d, tier, match, plain=1 - match) for d in range(2) for tier, match in enumerate((1.0, 0.5, 0.0))]
    found = summarize([*answers, answer(0, 0, 0.0, plain=1.0)], 7)
    assert [found["think"][tier]["accuracy"] for tier in TIERS] == pytest.approx([2 / 3, 0.5, 0.0])
    assert found["think"]["average"]["accuracy"] == pytest.approx((2 / 3 + 0.5) / 3)
    assert found["ntp"]["average"]["accuracy"] == pytest.approx((1 / 3 + 0.5 + 1) / 3)
    assert [found["ntp"][name] for name in ("budget", "thought_length", "closed_share")] == [0, 0.0, 0.0]
    assert [found["think"][name] for name in ("budget", "closed_share")] == [7, 1.0]
