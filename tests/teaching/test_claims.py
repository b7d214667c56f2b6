"""What lessons say of recorded results is what the data say."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from rmt_mini.files import Comparison, Evaluation, ExamOutcome, Map, Pair, PostTraining, Preflight, read_metrics
from rmt_mini.report.claims import claims, corrected
from rmt_mini.report.markdown import points
from rmt_mini.teaching.lessons import by_number
from tests.guide import words_of

DATA = Path(__file__).resolve().parents[2] / "data"
SORTS = ("saying", "calculable")


def said(lesson: int) -> str:
    return " ".join(words_of(by_number()[str(lesson)]).split())


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def test_lesson_0_says_which_sort_gained_and_by_what() -> None:
    found, words = Evaluation.read(DATA / "micro/seeds"), said(0)
    before, after = found.before, found.after
    thinking = [percent(one.think.sorts["calculable"].accuracy) for one in (before, after)]
    assert f"it was so before RMT: {thinking[0]} right before, {thinking[1]} after" in words
    lengths = [one.think.sorts["calculable"].thought_length for one in (before, after)]
    everywhere = before.think.thought_length, after.think.thought_length
    assert (
        "from {:.0f} tokens to {:.0f} (over all positions from {:.0f} to {:.0f})".format(*lengths, *everywhere) in words
    )
    for sentence, way, cell in (
        ("at sayings, from {} to {} after a thought", "think", lambda row: row.sorts["saying"]),
        ("takes plain prediction from {} to {} there", "ntp", lambda row: row.sorts["saying"]),
        ("on average thinking rises from {} to {}", "think", lambda row: row.average),
        ("plain prediction, which rises from {} to {}.", "ntp", lambda row: row.average),
    ):
        ends = (percent(cell(getattr(one, way)).accuracy) for one in (before, after))
        assert sentence.format(*ends) in words
    assert f"it ends {-100 * found.gain['think_minus_ntp_after'].difference:.1f} points below plain prediction" in words


def test_lesson_3_says_how_far_thoughts_are_from_the_budget() -> None:
    metrics, words = read_metrics(DATA / "micro/seed0"), said(3)
    first, middle, last = (metrics[start : start + 10] for start in (0, 50, 100))
    above = fmean((one.thought_length - one.budget) / one.budget for one in first)
    assert 0.35 < above < 0.45
    assert "In the first ten steps the mean length is about two fifths of a budget above" in words
    off = fmean(abs(one.thought_length - one.budget) / one.budget for one in middle)
    single = fmean(1 - one.length_reward for one in middle)
    assert 0.10 < off < 0.15
    assert 0.55 < single < 0.65
    assert "off by an eighth there while single thoughts still miss by three fifths of a budget" in words
    assert fmean(1 - one.length_reward for one in last) < single / 2  # "only late are both small"


def test_lesson_3_says_how_thoughts_came_down() -> None:
    metrics, words = read_metrics(DATA / "micro/seed0"), said(3)
    closed = [percent(fmean(one.closed_share for one in metrics[start : start + 10])) for start in (0, 10, 100)]
    assert "from {} in the first ten steps to {} in the next ten.".format(*closed) in words
    assert f"the share rises to {closed[2]}." in words
    reached = next(one.step for one in metrics if one.thought_length <= one.budget)
    assert 0.55 < reached / len(metrics) < 0.7  # "after two thirds of the run"
    assert f"From above: {metrics[0].thought_length:.0f} tokens at a budget of {metrics[0].budget}" in words
    assert 0 < metrics[-1].budget - metrics[-1].thought_length < 1  # "slightly below"


def test_lesson_5_says_what_the_formula_gives_and_what_was_counted() -> None:
    tiers = [*Preflight.read(DATA / "micro/seed0").tiers.values()]
    formula = [round(100 * (1 - one.accuracy**8 - (1 - one.accuracy) ** 8)) for one in tiers]
    counted = [round(100 * one.signal_groups) for one in tiers]
    pairs = [number for pair in zip(formula, counted, strict=True) for number in pair]
    assert "More: {} % where {} % were counted, {} where {}, {} where {}.".format(*pairs) in said(5)


def test_lesson_8_says_what_the_recorded_run_improves() -> None:
    found, words = Evaluation.read(DATA / "micro/seed0"), said(8)
    ends = [[percent(one.think.sorts[sort].accuracy) for one in (found.before, found.after)] for sort in SORTS]
    assert "sayings after a thought rise from {} to {}.".format(*ends[0]) in words
    assert f"({found.after.think.sorts['calculable'].n}) thinking goes from {ends[1][0]} to {ends[1][1]}" in words
    last = [percent(row.average.accuracy) for row in (found.after.ntp, found.after.think)]
    assert "plain prediction, with {}, is ahead of thinking, with {}:".format(*last) in words


def test_lesson_4_says_what_rmt_did_to_calculable_tokens_and_noise() -> None:
    found = Evaluation.read(DATA / "micro/seed0")
    ends = [percent(one.think.sorts["calculable"].accuracy) for one in (found.before, found.after)]
    count = found.after.think.sorts["calculable"].n
    assert f"RMT did not raise it: {ends[0]} before and {ends[1]} after, at {count} positions" in said(4)
    noise = found.after.think.sorts["noise"]
    assert noise.low < found.before.ntp.sorts["noise"].accuracy < noise.high


def test_lesson_8_says_what_other_settings_did() -> None:
    older, words = Comparison.read(DATA / "micro/comparison"), said(8)
    arms, pairs = older.arms, {(one.b, one.tier): 100 * one.difference for one in older.paired}
    lengths = arms["rmt-no-budget"].thought_length, arms["rmt"].thought_length
    assert "they have {:.1f} tokens where RMT's have {:.1f}".format(*lengths) in words
    assert f"lower by {pairs['rmt-no-budget', 'average']:.1f} points" in words
    lost = [pairs["rmt-no-ntp", tier] for tier in ("hard", "easy")]
    assert "it loses {:.1f} points, the easy one {:.1f}.".format(*lost) in words
    ends = percent(arms["rpt"].average.accuracy), arms["rpt"].thought_length, percent(arms["rmt"].average.accuracy)
    assert "RPT ends at {}, with thoughts of {:.0f} tokens, and RMT at {}".format(*ends) in words


def test_lesson_9_says_what_the_comparison_shows() -> None:
    found, words = Comparison.read(DATA / "abacus/comparison"), said(9)
    pairs = {(one.b, one.tier): one for one in found.paired}
    assert (found.bases, len(found.seeds)) == (3, 2)
    assert f"it is ahead, by {points(pairs['ntp', 'average'])} points" in words
    assert f"on calculable tokens it is {points(pairs['ntp', 'calculable'])}" in words
    assert f"on sayings it is {points(pairs['ntp', 'saying'])}, which is inconclusive" in words
    assert [pairs["ntp", tier].sign for tier in ("average", "calculable", "saying")] == [1, 1, 0]
    longer = percent(found.arms["ntp-equal-compute"].sorts["calculable"].accuracy)
    ours = percent(found.arms["rmt"].sorts["calculable"].accuracy).removesuffix(" %")
    assert f"at equal compute the difference is {points(pairs['ntp-equal-compute', 'average'])}, inconclusive" in words
    assert f"without a thought at {longer} of calculable tokens, where RMT has {ours}." in words
    assert pairs["ntp-equal-compute", "average"].sign == 0
    assert found.arms["ntp-equal-compute"].seeds == 1
    took = [found.arms[name].compute for name in ("rmt", "ntp")]
    assert round(took[0].operations / took[1].operations) == 7  # "two, seven, or seventy?"
    assert f"and still the difference is {points(pairs['rpt', 'average'])} points" in words
    assert all(a > b for a, b in zip(found.arms["rmt"].by_base, found.arms["rpt"].by_base, strict=True))
    second = Comparison.read(DATA / "abacus/second")
    again = next(one for one in second.paired if (one.b, one.tier) == ("rpt", "average"))
    verdict = {claim.text: claim.sign for claim in corrected(claims(second))}["RMT is more accurate than RPT"]
    assert f"{points(again)} points for RMT over RPT, which {('is inconclusive', 'holds')[verdict]} after" in words
    made = json.loads((DATA / "abacus/second/thoughts.json").read_text(encoding="utf-8"))
    *others, last = (one["moves"] for one in made["before"])
    sentence = "moves of a calculation in the text in {} of them, where the others do in {:.0f} to {}"
    assert sentence.format(percent(last), 100 * min(others), percent(max(others))) in words
    assert [one["right"] < 0.25 for one in made["after"]] == [False] * 4 + [True]  # "learns nothing"
    calculable = [percent(found.arms[arm].sorts["calculable"].accuracy) for arm in ("rpt", "rmt")]
    assert f"RPT is best on calculable tokens, with {calculable[0]}, RMT nearly level" in words
    assert pairs["rpt", "calculable"].sign == 0
    gaps = [points(pairs["rpt", sort]) for sort in ("saying", "calculable")]
    assert "here they do, with {} and {}.".format(*gaps) in words
    alone = claims(found)
    lost = {one.text for one in alone if one.sign} - {one.text for one in corrected(alone) if one.sign}
    assert lost == {
        "RMT is more accurate than RPT",
        "RMT's thoughts are shorter than RPT's",
        "The NTP loss adds to accuracy",
        "Thinking helps, and not reward alone",
        "RMT's settings here beat the paper's to the letter",
        "Comparing within a group beats learning right thoughts by heart",
    }
    controls = ("rmt-shuffled-reward", "average"), ("rl-no-think", "calculable"), ("rmt-random-tokens", "average")
    shuffled, thought, chosen = (points(pairs[control]) for control in controls)
    assert f"all that RL gave, {shuffled} points, which holds; answers given at once cost {thought} points on" in words
    assert f"random tokens are inconclusive, {chosen}; RLP's arm ends" in words
    assert f"ends {100 * (pairs['rlp', 'average'].difference or 0):.1f} points lower, where the untrained" in words
    reading = [points(pairs["rmt-no-ntp", sort]) for sort in ("calculable", "saying")]
    assert "by {} points on calculable tokens and by {} on sayings".format(*reading) in words
    short = [points(pairs["rmt-no-budget", sort]) for sort in ("calculable", "saying")]
    assert "The budget changes RMT by {} points on calculable tokens and by {} on sayings".format(*short) in words
    assert (
        f"can be seen: on average {points(pairs['rmt-no-curriculum', 'average'])}, where the paper has +3.65" in words
    )
    assert {one.sign for one in found.paired if one.b == "rmt-no-curriculum"} == {0}
    assert max(found.arms, key=lambda name: found.arms[name].average.accuracy) == "rmt-reversed-curriculum"
    assert pairs["rmt-reversed-curriculum", "average"].sign == 0  # "the highest row here, but"


def test_lesson_9_says_what_the_older_text_shows() -> None:
    older, words = Comparison.read(DATA / "micro/comparison"), said(9)
    pairs = {one.b: one for one in older.paired if one.tier == "average"}
    leads = [f"{-100 * pairs[name].difference:.1f}" for name in ("ntp", "ntp-equal-compute")]
    assert "ahead of RMT, by {} points for equal steps and by {} for equal compute".format(*leads) in words
    assert [pairs[name].sign for name in ("ntp", "ntp-equal-compute")] == [-1, -1]
    controls = ("rmt-shuffled-reward", "rl-no-think", "rmt-random-tokens")
    assert [pairs[name].sign for name in controls] == [1, 1, 0]
    calculable = {one.b: one for one in older.paired if one.tier == "calculable"}
    for name, sentence in (
        ("rpt", "on calculable tokens RPT is ahead of RMT there, by {0:.1f} points [{2:.1f}, {1:.1f}]"),
        ("rl-no-think", "show what a thought adds, {0:+.1f} [{1:+.1f}, {2:+.1f}]"),
    ):
        one, sign = calculable[name], 1 if "{0:+" in sentence else -1
        assert one.sign == sign
        assert sentence.format(*(100 * sign * end for end in (one.difference, one.low, one.high))) in words
    read = next(one for one in older.paired if (one.b, one.tier) == ("rl-no-think", "saying"))
    share = older.arms["rmt"].sorts["saying"].n / older.arms["rmt"].average.n
    whole = pairs["rl-no-think"].difference
    assert f"ahead of it by {100 * whole:.1f} points, but nearly all of that is sayings" in words
    assert 0.95 < share * read.difference / whole < 1.05
    chosen = pairs["rmt-random-tokens"], calculable["rmt-random-tokens"]
    widths = [50 * (one.high - one.low) for one in chosen]
    assert widths[0] < 1.3  # "by little more than a point"
    assert f"{widths[1]:.0f} points either way would look the same" in words


def test_lesson_9_says_where_thinking_pays() -> None:
    words, maps = said(9), [Map.read(DATA / "abacus" / name).levels for name in ("share", "depth")]
    gated, thinking = ([one[what].differences["ntp"] for one in maps] for what in ("gated", "average"))
    ends = [points([*row.values()][place]) for place in (0, -1) for row in gated]
    begins = "begins at zero, {} points where no document has a calculation and {} where each has one move"
    rises = "to {} where all have a calculation, to {} where each has four moves"
    assert begins.format(*ends[:2]) in words
    assert rises.format(*ends[2:]) in words
    assert all(one.difference < two.difference for row in gated for one, two in pairwise(row.values()))
    pairs = [(row[at], other[at]) for row, other in zip(gated, thinking, strict=True) for at in row]
    lower = [round(100 * (one.difference - other.difference)) for one, other in pairs]
    assert f"RMT lies {min(lower)} to {max(lower)} points lower against NTP only, and begins below" in words
    assert [[change.sign for change in row.values()] for row in thinking] == [[-1, 0, 0, 0, 0], [-1, 0, 0, 0]]
    (cross,) = maps[0]["average"].crossings
    assert (
        f'at a share of {cross.at:.2f}" is not supported: the crossing may lie anywhere from {cross.first:.2f}' in words
    )
    assert not [
        one for found in maps for level in found.values() for one in level.crossings if "rpt" in (one.ahead, one.behind)
    ]
    assert all(
        one.difference > 0
        for found in maps
        for what in ("gated", "average")
        for one in found[what].differences["rpt"].values()
    )
    behind = [-100 * one.difference for found in maps for one in found["calculable"].differences["rpt"].values()]
    assert f"ahead on each that has them, by {min(behind):.0f} to {max(behind):.0f} points" in words
    assert {one.sign for found in maps for one in found["calculable"].differences["rpt"].values()} == {0}
    plain = [100 * cell.accuracy for found in maps for cell in found["plain"].arms["rpt"].values()]
    assert f"stays at {min(plain):.0f} to {max(plain):.0f} %, since nothing teaches it to read" in words


def test_lesson_9_says_what_each_mechanism_is_for() -> None:
    words = said(9)
    arms = {"sayings": "rmt-no-ntp", "budget": "rmt-no-budget", "choice": "rmt-random-tokens"}
    one = {name: Map.read(DATA / "abacus" / name).levels["average"].differences[arm] for name, arm in arms.items()}
    none, two, short, long, rare, full = (points(change) for row in one.values() for change in row.values())
    assert f"gives {two} points with two sayings a document and {none} with none" in words
    assert f"gives {short} where thoughts are closed after 34 tokens and {long} where they may have 112" in words
    assert f"as we expected: {rare} where one document in ten has a calculation, and {full} where all have" in words


def passed(found: ExamOutcome, arm: str, k: int, end: int = 0) -> str:
    return percent(found.arms[arm][end].pass_at[k].accuracy).removesuffix(" %")


def lead(found: ExamOutcome, step: int) -> Pair:
    """RMT's model minus the untrained one."""
    return next(one for one in found.paired if (one.b, one.step, one.k) == ("base", step, 1))


def test_lesson_10_says_who_begins_and_who_ends_ahead() -> None:
    exams, words = PostTraining.read(DATA / "abacus/comparison").exams, said(10)
    every, one = exams["abacus-all"], exams["abacus-text"]
    first, last = ([passed(every, arm, 1, end) for arm in ("base", "rpt", "ntp", "rmt")] for end in (0, -1))
    room = [passed(every, arm, 8) for arm in ("base", "rpt", "ntp")]
    assert f"pass@1, with {first[0]} and {first[1]} %, but not in pass@8, with {room[0]} and {room[1]} %." in words
    assert f"right in {last[0]} % of its answers, and the other in {last[1]} %" in words
    assert f"NTP only has {room[2]} % in pass@8 and ends at {last[2]} %" in words
    lengths = [step.thought_length for step in every.arms["ntp"]]
    assert min(lengths) > 32  # of 34 that are allowed: "nearly all are cut off"
    begin = [passed(one, arm, 1) for arm in ("rmt", "rpt", "base")]
    assert "models begin with {} and {} % right, the untrained one with {} %".format(*begin) in words
    assert f"its lead is gone: {first[1]} %, where RMT has {first[3]} %" in words
    older = PostTraining.read(DATA / "micro/comparison").exams["micro"]
    begin = [passed(older, arm, 1) for arm in ("rmt", "ntp", "base")]
    assert begin[0] == begin[1]
    assert f"begin with {begin[0]} % where the untrained one has {begin[2]}" in words
    assert lead(older, 60).sign == -1  # "far below"
    fourth = PostTraining.read(DATA / "micro/comparison").exams["micro-text"]
    last = lead(fourth, fourth.arms["rmt"][-1].step)
    below = [-100 * end for end in (last.difference, last.high, last.low)]
    assert "RMT's model ends {:.1f} points [{:.1f}, {:.1f}] below the untrained one there".format(*below) in words
    assert (lead(every, 0).sign, lead(one, 0).sign) == (0, 1)  # "surely in one of them"
    assert all(abs(lead(found, 60).difference) < 0.03 for found in (every, one))
    assert f"RMT's is ahead by {points(lead(one, 120))} points in one" in words
    assert lead(every, 120).sign == 0
    heads = [f"{100 * lead(found, step).difference:+.1f}" for found in (one, every) for step in (0, 120)]
    sentence = "{} points at the beginning and {} at the end when one word is asked for, {} and {} when all"
    assert sentence.format(*heads) in words


def test_lesson_11_says_what_the_run_on_a_real_model_shows() -> None:
    found, words = Evaluation.read(DATA / "laptop"), said(11)
    gap = found.gain["think_minus_ntp_after"]
    assert f"the difference is inconclusive ({points(gap)} points)" in words
    assert gap.sign == 0
    signal = percent(fmean(one.signal_groups for one in read_metrics(DATA / "laptop")))
    assert f"{signal} of the groups of training had a signal" in words
