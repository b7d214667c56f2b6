import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer, Position
from rmt_mini.stages.statistics import (
    SHARE,
    Spread,
    by_base,
    change,
    influence,
    interval,
    interval_of_mean,
    of_sort,
    sorts_in,
    spread_of,
    summarize,
    summarize_all,
)


def answer(
    document: int,
    tier: int,
    match: float,
    plain: float = 0.0,
    length: int = 0,
    closed: bool = True,
    sort: str = "",
    run: int = 0,
    base: int = 0,
) -> Answer:
    position = Position(document, 1, tier, 0.0)
    return Answer(position, plain, match, length, closed, sort, run, base)


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


def test_a_base_has_the_mean_of_tiers_of_its_own_runs() -> None:
    other = [replace(one, base=1, run=2, match=1.0) for one in HAND[:3]]
    assert by_base(other + HAND) == pytest.approx([0.5, 1.0])


def test_parts_of_a_document_count_as_one() -> None:
    apart = [answer(d, 0, float(d % 3 > 0)) for d in range(12)]
    parts = [replace(one, whole=f"book {n // 4}") for n, one in enumerate(apart)]
    added = influence(parts, matches(parts), [0])[1]
    freedom = [spread.freedom for some in (apart, parts) if (spread := spread_of(some, added, [0]))]
    assert freedom == [(11,), (2,)]


def test_of_one_document_nothing_is_known_but_that_accuracy_is_a_share() -> None:
    alone = [replace(answer(0, 0, 1.0, length=9), bits=6.0, bits_after=2.5) for _ in range(3)]
    found = summarize(alone, 8)
    assert [found["more"][name]["average"]["low"] for name in ("bits", "gain")] == [None, None]
    assert (found["think"]["average"]["low"], found["think"]["average"]["high"]) == (0.0, 1.0)
    everything = summarize_all({"before": (8, alone), "after": (8, alone)})
    assert everything["length_change"]["all"] == {"difference": 0.0, "low": None, "high": None}
    assert everything["gain"]["think_after_minus_before"] == {"difference": 0.0, "low": -1.0, "high": 1.0}


def test_documents_count_and_not_positions() -> None:
    """Two documents of a hundred equal answers each say as little as two answers."""
    answers = [answer(d, 0, float(d)) for d in range(2) for _ in range(100)]
    found, two = interval(answers, matches(answers), [0]), interval(answers[::100], np.array([0.0, 1.0]))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.5, two["low"], two["high"]))


def test_no_answer_and_a_missing_tier() -> None:
    assert interval([], np.array([])) == {"mean": None, "low": None, "high": None, "n": 0}
    answers = [answer(d, 2 * (d % 2), float(d % 2)) for d in range(10)]
    assert interval(answers, matches(answers), [1]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert interval(answers, matches(answers))["mean"] == 0.5  # of the two tiers there are


@pytest.mark.filterwarnings("error")
def test_a_tier_of_a_few_documents_has_an_interval_that_json_can_hold() -> None:
    answers = [answer(d, 0, float(d % 2)) for d in range(10)] + [answer(0, 2, 1.0), answer(1, 2, 0.0)]
    found = summarize(answers, 4)["think"]["hard"]
    assert (found["accuracy"], found["low"], found["high"]) == (0.5, 0.0, 1.0)
    once = [one for one in answers if one.position != Position(1, 1, 2, 0.0)]
    assert interval(once, matches(once), [2]) == {"mean": 1.0, "low": None, "high": None, "n": 1}
    assert interval(once, matches(once), [2], limits=SHARE) == {"mean": 1.0, "low": 0.0, "high": 1.0, "n": 1}
    json.dumps(summarize(answers, 4), allow_nan=False)


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


def test_runs_that_differ_widen_the_interval() -> None:
    alike, unlike = runs((0.5, 0.5, 0.5)), runs((0.2, 0.5, 0.8))
    (one, same, other) = (interval(found, matches(found), [0]) for found in (runs((0.5,)), alike, unlike))
    assert one["mean"] == same["mean"] == other["mean"] == 0.5
    assert (one["low"], one["high"]) != (0.5, 0.5)
    # three runs that answer alike say no more than one, since they ask about the same documents
    assert same["high"] - same["low"] == pytest.approx(one["high"] - one["low"])
    assert other["high"] - other["low"] > 1.5 * (same["high"] - same["low"])


def test_bases_count_instead_of_runs_where_they_differ_by_more_than_their_seeds_explain() -> None:
    rates = (0.2, 0.3, 0.5, 0.6, 0.7, 0.8)
    answers = runs(rates, documents=200)
    by_base = [replace(one, base=one.run // 2) for one in answers]  # 0.25, 0.55, 0.75
    crossed = [replace(one, base=(0, 1, 2, 2, 1, 0)[one.run]) for one in answers]  # 0.5, 0.5, 0.5
    documents, _ = spread_of(answers, influence(answers, matches(answers), [0])[1], [0]).variances
    for found, means in ((answers, rates), (by_base, (0.25, 0.55, 0.75)), (crossed, rates)):
        spread = spread_of(found, influence(found, matches(found), [0])[1], [0])
        assert spread is not None
        assert spread.freedom == (199, len(means) - 1)
        assert spread.variances == pytest.approx((documents, np.var(means, ddof=1) / len(means)))


@pytest.mark.parametrize(("bases", "seeds"), [(3, 2), (3, 1), (5, 1)])
@pytest.mark.parametrize("of_base", [0.0, 0.1])
@pytest.mark.parametrize("of_seed", [0.05, 0.1])
def test_of_intervals_in_the_designs_in_use_93_in_100_or_more_hold_the_truth(
    bases: int, seeds: int, of_base: float, of_seed: float
) -> None:
    """150 documents; differences of -1, 0 and 1 whose mean is 0.1."""
    source, documents, tries, held, runs = np.random.default_rng(0), 150, 400, 0, bases * seeds
    base = np.repeat(np.arange(bases), seeds)
    asked = [answer(d, 0, 0.0, run=run, base=base[run]) for run in range(runs) for d in range(documents)]
    for _ in range(tries):
        mean = source.normal(0, of_base, bases)[base] + source.normal(0, of_seed, runs)
        chance = 0.1 + mean[:, None] + source.normal(0, 0.15, documents)
        right = [source.random(chance.shape) < np.clip(0.4 + sign * chance / 2, 0, 1) for sign in (1, -1)]
        found = interval(asked, (right[0].astype(float) - right[1]).ravel(), [0])
        held += found["low"] <= 0.1 <= found["high"]
    assert held / tries >= 0.93


def test_the_p_value_is_the_level_whose_interval_reaches_zero() -> None:
    spread = Spread((0.04,), (9,))
    # one source: Student's test, two-sided; t = 0.5 / 0.2 = 2.5 on 9 degrees of freedom
    assert spread.p_value(0.5) == spread.p_value(-0.5) == pytest.approx(2 * stats.t.sf(2.5, 9))
    both = Spread((0.04, 0.01), (9, 2))
    assert both.half_width(both.p_value(0.4)) == pytest.approx(0.4)
    assert both.p_value(0.0) == 1.0
    assert Spread((0.0,), (3,)).p_value(0.1) == pytest.approx(0, abs=1e-9)


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


def test_two_documents_have_a_spread_and_one_has_none() -> None:
    answers = [answer(document, 0, 0.0) for document in (0, 1)]
    found = interval(answers, np.array([-0.2, 0.4]))
    wanted = stats.ttest_1samp([-0.2, 0.4], 0).confidence_interval()
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.1, *wanted))
    alone = interval([answer(0, 0, 0.0), answer(0, 0, 0.0)], np.array([-0.2, 0.4]))
    assert (alone["low"], alone["high"]) == (None, None)
    times = {"before": 1, "after": 3}
    measured = {when: (5, [answer(d, 0, 0.0, length=n * (d + 1)) for d in (0, 1)]) for when, n in times.items()}
    low, high = stats.ttest_1samp([2.0, 4.0], 0).confidence_interval()
    wanted = {"difference": 3.0, "low": pytest.approx(low), "high": pytest.approx(high)}
    assert summarize_all(measured)["length_change"]["all"] == wanted


def test_an_interval_is_students_over_documents_whose_tiers_weigh_alike() -> None:
    values = np.array([1.0, 0.0, 0.5, 0.0, 0.25, 1.0])
    answers = [answer(document, 0, 0.0) for document in range(6)]
    wanted = stats.ttest_1samp(values, 0).confidence_interval()
    found = interval(answers, values)
    assert [found["low"], found["high"]] == pytest.approx(list(wanted))
    ends = {"low": pytest.approx(wanted[0]), "high": pytest.approx(wanted[1])}
    assert interval_of_mean(values) == {"mean": pytest.approx(values.mean()), **ends, "n": 6}
    # the second tier has one answer a document, the first two: each answer of the second weighs twice as much
    doubled = [answer(d, 0, 0.0) for d in range(6) for _ in range(2)] + [answer(d, 1, 0.0) for d in range(6)]
    mean, added = influence(doubled, np.concatenate([np.repeat(values, 2), np.zeros(6)]), (0, 1, 2))
    assert mean == pytest.approx(values.mean() / 2)
    assert added[:12] == pytest.approx(np.repeat(values - values.mean(), 2) / 24)
    assert added[12:] == pytest.approx(np.zeros(6))


def test_accuracies_stay_between_0_and_1_and_their_differences_between_minus_1_and_1() -> None:
    two = [answer(0, 0, 0.0), answer(1, 0, 1.0)]
    assert [interval(two, matches(two), [0], limits=SHARE)[end] for end in ("low", "high")] == [0, 1]
    assert [change(two, matches(two), [0])[end] for end in ("low", "high")] == [-1, 1]
    assert change(two, matches(two), [0], limits=None)["high"] > 1
    assert interval_of_mean(np.array([0.9, 1.0, 0.8]), SHARE)["high"] == 1
    assert interval([], np.array([]), limits=SHARE) == {"mean": None, "low": None, "high": None, "n": 0}


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1.0])
def test_documents_that_are_all_alike_leave_room_for_others(value: float) -> None:
    """It is theirs and not that of their answers, which say as little as one each."""
    answers = [answer(d, 0, value, run=run) for d in range(6) for run in (0, 1, 2) for _ in range(5)]
    found = interval(answers, matches(answers), [0], limits=SHARE)
    reach = stats.binomtest(0, 6).proportion_ci().high
    assert (found["low"], found["high"]) == pytest.approx((value * (1 - reach), value + reach * (1 - value)))
    assert interval_of_mean(np.full(6, value), SHARE)["high"] == pytest.approx(found["high"])
    gap = change(answers, matches(answers), [0], tested=True)
    assert (gap["low"], gap["high"]) == pytest.approx((value - reach * (value + 1), value + reach * (1 - value)))
    assert gap["p"] == pytest.approx(min(1, 2 / (1 + value) ** 6))
    assert (gap["p"] < 0.05) == (gap["low"] > 0)
    assert stats.binomtest(6, 6).pvalue == pytest.approx(2 / 2**6)  # what it is where one is always right


def test_a_document_whose_name_is_a_number_is_no_other_document() -> None:
    answers = [replace(answer(0, 0, 1.0), whole="1"), answer(1, 0, 0.0), answer(2, 0, 1.0)]
    spread = spread_of(answers, influence(answers, matches(answers), [0])[1], [0])
    assert spread is not None
    assert spread.freedom == (2,)


def test_a_row_averages_all_tiers_and_plain_answers_take_no_thought() -> None:
    answers = [
        answer(d, tier, match, plain=1 - match, length=3 * d + 1, closed=d > 0)
        for d in range(2)
        for tier, match in enumerate((1.0, 0.5, 0.0))
    ]
    found = summarize([*answers, answer(0, 0, 0.0, plain=1.0)], 7)
    assert set(found) == {"ntp", "think"}
    for row in found.values():
        assert set(row) == {*TIERS, "average", "thought_length", "closed_share", "budget"}
        assert all(set(row[tier]) == {"accuracy", "low", "high", "n"} for tier in (*TIERS, "average"))
    assert [found["think"][tier]["accuracy"] for tier in TIERS] == pytest.approx([2 / 3, 0.5, 0.0])
    assert found["think"]["average"]["accuracy"] == pytest.approx((2 / 3 + 0.5) / 3)
    assert found["ntp"]["average"]["accuracy"] == pytest.approx((1 / 3 + 0.5 + 1) / 3)
    assert [found["ntp"][name] for name in ("budget", "thought_length", "closed_share")] == [0, 0.0, 0.0]
    thoughts = [found["think"][name] for name in ("budget", "thought_length", "closed_share")]
    assert thoughts == pytest.approx([7, (3 * 1 + 3 * 4 + 0) / 7, (3 + 1) / 7])


def test_measures_beside_accuracy_are_averaged_where_they_were_taken() -> None:
    plain = answer(0, 0, 1.0, sort="noise")
    measured = [
        replace(plain, bits=3.0, bits_after=1.0, gated=1.0, probe={"own": 1.0, "blank": 0.0}),
        replace(plain, bits=2.0, bits_after=2.5, gated=0.0, sort="calculable", position=Position(1, 1, 0, 0.0)),
    ]
    found = summarize(measured, 4)["more"]
    assert {name: parts["average"]["mean"] for name, parts in found.items()} == {
        "gated": 0.5, "bits_after": 1.75, "bits": 2.5, "gain": 0.75, "own": 1.0, "blank": 0.0,
    }  # fmt: skip
    assert found["gain"]["calculable"]["mean"] == -0.5
    assert found["own"]["average"]["n"] == found["own"]["noise"]["n"] == 1
    assert "calculable" not in found["own"]
    assert "more" not in summarize([plain], 4)  # a model that answers in text has none of them
