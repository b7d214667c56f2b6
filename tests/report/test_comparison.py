"""Runs read together: numbers against a hand count, verdicts, and what is refused."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rmt_mini.arms import ARMS, BASE, MAIN, METHOD, arms_named
from rmt_mini.cli import main
from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.files import (
    ArmRow,
    Cell,
    Change,
    Comparison,
    CurvePoint,
    Evaluation,
    ExamOutcome,
    ExamPlan,
    Map,
    Mean,
    OverPlan,
    Pair,
    PostTraining,
    Tiers,
    as_lines,
    read_lines,
    read_metrics,
)
from rmt_mini.method.schedule import budget_of, probabilities_of
from rmt_mini.records import Overlap
from rmt_mini.report import plots
from rmt_mini.report.claims import SHOWN, claims, corrected, exam_claims
from rmt_mini.report.comparison import (
    SPREAD,
    across_seeds,
    compare_runs,
    expected_half_width,
    expected_positions,
    read_exams,
    sensitivities,
)
from rmt_mini.report.maps import map_over
from rmt_mini.report.markdown import points, share
from rmt_mini.report.plots import Figured
from rmt_mini.report.plots.canvas import LOOKS
from rmt_mini.report.report import (
    accuracy_table,
    exam_table,
    sorts_table,
    write_comparison_report,
    write_map_report,
    write_seeds_report,
)
from tests.report.made import DOCUMENTS, a_run, an_exam, cell, row

ROOT = Path(__file__).resolve().parents[2]
BASE_CONFIG = RMTConfig(budget_start=16, budget_decay=0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    given = {"rmt": (0.8, 5), "rpt": (0.5, 25), "rmt-no-budget": (0.8, 20), "ntp": (0.9, 20)}
    return compared(tmp_path_factory.mktemp("whole"), given)


@pytest.fixture(autouse=True)
def png(monkeypatch: pytest.MonkeyPatch) -> Callable[[Figured], bytes]:
    """Figures of reports are built here, and not turned into pixels, which takes longer; a test may do it by this."""
    real = Figured.png
    monkeypatch.setattr(Figured, "png", lambda _: b"")
    return real


def read_together(found: Mapping[str, Sequence[Path | None]], bases: int = 1) -> Comparison:
    """Read runs as one comparison of two seeds."""
    made = compare_runs(found, bases)
    return Comparison(**made, config=BASE_CONFIG, seeds=[0, 1], bases=bases, machine={}, versions={})


def page_of(folder: Path, found: Comparison, *given: Any, **more: Any) -> str:
    """Write the report of a comparison, and return its page."""
    write_comparison_report(folder, found, *given, **more)
    return (folder / "report.md").read_text()


def compared(folder: Path, given: dict[str, tuple[float, int]]) -> Comparison:
    """Compare arms whose runs have this share of right answers, and thoughts of this length."""
    found = {
        arm: [a_run(folder, arm, seed, right, length, right if arm == "ntp" else 0.4) for seed in (0, 1)]
        for arm, (right, length) in given.items()
    }
    return read_together(found)


def ends(one: Cell | Change) -> tuple[float, float]:
    assert one.low is not None
    assert one.high is not None
    return one.low, one.high


def test_the_numbers_are_those_of_the_answers(whole: Comparison) -> None:
    found = whole
    assert set(found.arms) == {"base-ntp", "base-ntr", "rmt", "rpt", "rmt-no-budget", "ntp"}
    for name, right in {"base-ntp": 0.4, "base-ntr": 0.1, "rmt": 0.8, "rpt": 0.5, "ntp": 0.9}.items():
        average = found.arms[name].average
        assert average.accuracy == pytest.approx(right)
        assert found.arms[name].hard.n == 2 * DOCUMENTS
        low, high = ends(average)
        assert low < right < high
    rmt = found.arms["rmt"]
    assert [found.arms[name].thought_length for name in ("rmt", "rpt", "ntp")] == [5, 25, 0]
    # 3 steps of 100 forward and 50 backward tokens: 2 x 1000 x (300 + 2 x 150); of both 120 of documents: 3 x 120
    assert rmt.compute is not None
    assert rmt.compute.model_dump() == {
        "steps": 3, "rl_tokens": 30, "rl_tokens_by_tier": [6, 9, 15], "ntp_tokens": 90, "operations": 1.2e6,
        "rl_operations": 0.48e6, "seconds": 9.0, "rl_seconds": 6.75, "cold_start_seconds": 7.0,
    }  # fmt: skip
    pairs = {(one.b, one.tier): one for one in found.paired}
    assert pairs["rpt", "average"].difference == pytest.approx(0.3)
    low, high = ends(pairs["rpt", "average"])
    assert 0.1 < low < 0.3 < high < 0.5
    assert pairs["ntp", "noise"].difference == pytest.approx(-0.1)
    accuracy, length = (found.relative["rpt"][name] for name in ("accuracy", "thought_length"))
    assert accuracy is not None
    assert length is not None
    assert accuracy.ratio == pytest.approx(0.6)
    assert accuracy.low < 0.6 < accuracy.high
    assert length.ratio == pytest.approx(0.2)
    assert found.relative["ntp"]["thought_length"] is None
    assert (found.lengths["rpt"].difference, found.lengths["ntp"].difference) == (-20, 5)


def test_what_a_thought_is_worth_and_how_it_was_learned(whole: Comparison, tmp_path: Path) -> None:
    rmt, ntp = (whole.arms[name] for name in ("rmt", "ntp"))
    means = {name: parts["average"].mean for name, parts in rmt.more.items()}
    # the gate is right where either answer is: 80 % of documents; the easy tier alone was probed
    assert means == pytest.approx(
        {"bits": 3, "bits_after": 2, "gain": 1, "gated": max(0.8, 0.4), "own": 1, "other": 0}, abs=1e-9
    )
    assert rmt.more["own"]["calculable"].n == 2 * DOCUMENTS
    gated = next(pair for pair in whole.paired if (pair.b, pair.tier) == ("rpt", "gated"))
    assert gated.difference == pytest.approx(0.8 - 0.5)
    # an arm that thinks is followed by its thinking, one without RL by plain prediction
    assert {step: cell.accuracy for step, cell in rmt.curves["average"].items()} == pytest.approx({0: 0.1, 10: 0.8})
    assert ntp.curves["noise"][10].accuracy == 0.25
    page = page_of(tmp_path, whole)
    assert "| RMT | 80.0 [" in page.split("## What a thought is worth")[1].split("## What it took")[0]
    assert "](figures/curves.png)" in page


def test_a_curve_has_the_steps_that_all_runs_reached_and_may_be_missing(tmp_path: Path) -> None:
    runs = {"rmt": [a_run(tmp_path, "rmt", seed, 0.8, 5, 0.4) for seed in (0, 1)]}
    longer = runs["rmt"][0] / "curve.jsonl"
    first, last = read_lines(longer, CurvePoint).good
    longer.write_text(as_lines([first, last, last.model_copy(update={"step": 20})]))
    assert list(read_together(runs).arms["rmt"].curves["average"]) == [0, 10]
    longer.unlink()
    assert read_together(runs).arms["rmt"].curves == {}
    assert "figures/curves.png" not in page_of(tmp_path / "report", read_together(runs))


def test_of_many_arms_curves_are_drawn_of_those_that_are_no_controls(tmp_path: Path) -> None:
    named = ["rmt", "ntp", *(name for name in ARMS if name not in MAIN)][: len(LOOKS) + 1]
    found = compared(tmp_path, dict.fromkeys(named, (0.5, 5)))
    for arms, drawn in ((named, 2), (named[:-1], len(LOOKS))):
        page = page_of(tmp_path, found.model_copy(update={"arms": {name: found.arms[name] for name in arms}}))
        words = page.partition("](figures/curves.png)")[0].rpartition("![")[2]
        assert len(re.findall(r"\(\S+ to \S+\)", words)) == drawn
        assert ("Learning curves of all arms but controls are of" in page) is (drawn == 2)


def test_a_ratio_has_a_paired_interval(tmp_path: Path) -> None:
    # both arms are right on the same documents, so their ratio moves less than either accuracy
    found = compared(tmp_path, {"rmt": (0.8, 5), "rpt": (0.79, 25)})
    ratio, (low, high) = found.relative["rpt"]["accuracy"], ends(found.arms["rmt"].average)
    assert ratio is not None
    assert ratio.high - ratio.low < (high - low) / 0.8


def test_each_claim_is_judged_by_its_interval(whole: Comparison, tmp_path: Path) -> None:
    found = claims(whole)
    verdicts = {claim.text: claim.sign for claim in found}
    assert verdicts["RMT is more accurate than RPT"] == 1
    assert verdicts["RMT's thoughts are shorter than RPT's"] == 1
    assert verdicts["RMT thinks better than the untrained model predicts plainly"] == 1
    assert verdicts["The budget adds to accuracy"] == 0
    assert verdicts["RMT is more than training on the text (NTP only, equal steps)"] == -1
    assert "The NTP loss adds to accuracy" not in verdicts  # that arm was not run
    together = {claim.text: claim.sign for claim in corrected(found)}
    assert list(together.values()) == sorted(together.values(), key=(-1, 0, 1).index)
    # five claims: of p = 0.03 the interval excludes zero, and its claim is inconclusive among the others
    against = next(claim for claim in found if "equal steps" in claim.text)
    assert 0.05 / 2 < against.p < 0.05
    assert {text for text, sign in verdicts.items() if together[text] != sign} == {against.text}
    assert "**RMT is more accurate than RPT: holds.** By +60.0 % of RPT's accuracy [" in " ".join(
        claim.line() for claim in found
    )
    worse = claims(compared(tmp_path / "b", {"rmt": (0.3, 5), "rpt": (0.5, 25)}))
    assert {claim.text: claim.sign for claim in worse}["RMT is more accurate than RPT"] == -1
    never = compared(tmp_path / "c", {"rmt": (0.8, 5), "rpt": (0.0, 25)})
    assert never.relative["rpt"]["accuracy"] is None  # never right: no ratio


def test_the_report_has_a_row_for_each_arm_and_the_failures_first(whole: Comparison, tmp_path: Path) -> None:
    found = whole
    assert write_comparison_report(tmp_path, found) == accuracy_table(found)
    page = (tmp_path / "report.md").read_text()
    assert page.splitlines()[2].startswith("- **The budget adds to accuracy: inconclusive.**")
    assert "Verdicts are corrected for their number (5) by Holm's method" in page
    assert accuracy_table(found).count("\n") == 1 + len(found.arms)
    assert "| calculable | noise |" in sorts_table(found)
    for line in (
        "| RMT | 62.50 | 43.96 | 34.14 | 46.87 | 188 |",
        "| RMT | 3 | 30 | 90 | 0.00 | 9 | 7 | 40.0 [",
        "| RMT | 25 % | 40 % | 75 % | 20 % | 30 % | 50 % |",
        "| RPT | +30.0 [",
        "](figures/arms.png)",
    ):
        assert line in page
    assert "untrained" not in page.split("## What it took")[1]
    assert "- **One seed:**" in page_of(tmp_path, found.model_copy(update={"seeds": [7]}))


def test_bases_are_a_source_of_variation_and_said(tmp_path: Path) -> None:
    rights = {"": 0.8, "-base1": 0.4}  # both seeds of a base are alike, the bases are not
    runs = [a_run(tmp_path, f"rmt{base}", seed, right, 5) for base, right in rights.items() for seed in (0, 1)]
    one, found = (read_together({"rmt": runs}, bases) for bases in (1, 2))
    assert found.arms["rmt"].average.accuracy == pytest.approx(0.6)
    assert (found.arms["rmt"].seeds, one.arms["rmt"].seeds) == (2, 4)
    # two bases leave one degree of freedom, whose t is 12.7; four runs have three, and 3.2
    (low, _), (least, _) = ends(one.arms["rmt"].average), ends(found.arms["rmt"].average)
    assert low > 0.2
    assert least == 0
    exams = [
        an_exam(tmp_path / "e", f"rmt{base}", seed, {0: 4 * n}) for n, base in enumerate(rights) for seed in (0, 1)
    ]
    (_, high), (_, most) = (ends(read_exams({"rmt": exams}, n)["arms"]["rmt"][0].pass_at[1]) for n in (1, 2))
    assert high < 0.8
    assert most == 1
    page = page_of(tmp_path, found)
    assert "over the held-out documents and 2 bases x 2 seeds (0, 1)." in page
    assert "\n| RMT | 80.0 | 40.0 |\n" in page
    assert "in no interval" not in page
    assert "One seed:" not in page_of(tmp_path, found.model_copy(update={"seeds": [7]}))
    page = page_of(tmp_path, found.model_copy(update={"bases": 1}))
    assert "over the held-out documents and 2 seeds (0, 1)." in page
    assert "variation between bases is in no interval" in page


def test_a_control_of_fewer_seeds_is_compared_on_those_it_has(tmp_path: Path) -> None:
    rights = {0: 0.8, 1: 0.4, 2: 0.6, 3: 0.2}  # by run: seeds 0 and 1 of base 0, then of base 1
    ours = [a_run(tmp_path, f"rmt{run // 2}", run % 2, right, 5) for run, right in rights.items()]
    control = [a_run(tmp_path, "rlp", 0, 0.5, 10), None, a_run(tmp_path, "rlp1", 0, 0.3, 10), None]
    found = read_together({"rmt": ours, "rlp": control}, bases=2)
    assert (found.arms["rmt"].seeds, found.arms["rlp"].seeds) == (2, 1)
    assert found.arms["rmt"].average.accuracy == pytest.approx(0.5)
    assert found.arms["rlp"].average.accuracy == pytest.approx(0.4)
    gaps = {(one.b, one.tier): one.difference for one in found.paired}
    assert gaps["rlp", "average"] == pytest.approx((0.8 - 0.5 + 0.6 - 0.3) / 2)
    assert gaps["base-ntp", "average"] == pytest.approx(0.5 - 0.4)
    assert " Of fewer seeds (the first 1), and compared on these: `rlp`." in page_of(tmp_path, found)
    alone = read_together({"rmt": ours[::2], "rlp": control[::2]}, bases=2)
    assert found.relative["rlp"] == alone.relative["rlp"]
    assert [one for one in found.paired if one.b == "rlp"] == [one for one in alone.paired if one.b == "rlp"]


def test_an_arm_that_is_new_goes_by_its_name(tmp_path: Path, exam: ExamOutcome) -> None:
    found = compared(tmp_path / "a", {"rmt": (0.8, 5), "mine": (0.7, 20)})
    renamed = ExamOutcome.model_validate_json(exam.model_dump_json().replace('"rpt"', '"mine"'))
    table = write_comparison_report(tmp_path, found, {"gym:chain_sum": renamed})
    assert "| mine | 70.0 [" in table
    assert "| mine | " in exam_table(renamed)


def test_arms_measured_elsewhere_are_refused(tmp_path: Path) -> None:
    ours, theirs = ([a_run(tmp_path, arm, seed, 0.5, 5) for seed in (0, 1)] for arm in ("rmt", "rpt"))
    answers = theirs[1] / "answers.jsonl"
    whole = answers.read_text()
    answers.write_text(whole.replace('"d39"', '"another"'))
    with pytest.raises(UserError, match="'rpt' was not measured at the positions of 'rmt'"):
        compare_runs({"rmt": ours, "rpt": theirs})
    for damaged in (whole[:-30], whole + "half a li", "", "\n".join(whole.splitlines()[1:])):
        answers.write_text(damaged)
        with pytest.raises(UserError, match="does not hold one answer to every position"):
            compare_runs({"rmt": ours, "rpt": theirs})


def test_arms_change_what_they_are_named_for() -> None:
    base = RMTConfig(seed=3)
    for arm in arms_named(base):
        config, plain = arm.config(base).to_dict(), base.to_dict()
        changed = {name for name in plain if config[name] != plain[name]}
        assert bool(changed) == (arm.name != METHOD)
        assert not changed & {"seed", "steps", "model", "corpus", "group_size", "learning_rate", "documents_per_step"}
    assert {*ARMS, *BASE, "base"} == set(SHOWN)
    assert [name for name in SHOWN if name in ARMS] == [*ARMS]
    assert [arm.name for arm in arms_named(base, ["rpt", "base-ntp", "ntp"])] == ["ntp", "rpt", "rmt"]


def test_without_a_curriculum_tiers_are_drawn_as_often_over_all_steps() -> None:
    for start, end in ((0.3, 0.7), (0.0, 0.2), (0.5, 0.9)):
        base = RMTConfig(curriculum_start=start, curriculum_end=end, steps=1000)
        flat = configs_of(base)["rmt-no-curriculum"]
        drawn = np.mean([probabilities_of(base, step) for step in range(1000)], axis=0)
        assert probabilities_of(flat, 0) == pytest.approx(probabilities_of(flat, 999))
        assert probabilities_of(flat, 0) == pytest.approx(drawn, abs=1e-3)


def configs_of(base: RMTConfig) -> dict[str, RMTConfig]:
    return {arm.name: arm.config(base) for arm in arms_named(base)}


@pytest.mark.parametrize(("name", "last"), [("micro", 8), ("laptop", 4), ("gpu", 51), ("paper", 160)])
def test_the_short_budget_is_the_last_one_from_the_start(name: str, last: int) -> None:
    """20 x 0.4; 16 x 0.2 is 3 and B_min is 4; 256 x 0.2; 800 x 0.2."""
    base = preset(name)
    short = configs_of(base)["rmt-short-budget"]
    assert {budget_of(short, step) for step in (0, 1, base.steps)} == {last} == {budget_of(base, base.steps)}


def test_an_arm_is_what_it_is_named_also_where_the_method_has_a_part_switched_off() -> None:
    flat, free = preset("micro", use_curriculum=False), preset("micro", use_budget=False)
    assert probabilities_of(configs_of(flat)["rpt"], 0) == (0.0, 0.5, 0.5)
    assert "rmt-short-budget" not in configs_of(free)  # there is no budget to be short


def test_the_reversed_curriculum_goes_from_late_to_early() -> None:
    base, early, late = preset("micro"), (0.4, 0.3, 0.3), (0.1, 0.4, 0.5)
    turned = configs_of(base)["rmt-reversed-curriculum"]
    ends = [probabilities_of(config, step) for config in (base, turned) for step in (0, base.steps)]
    assert ends == [early, late, late, early]


def test_rlp_is_left_out_of_a_chat_unless_it_is_named() -> None:
    base = preset("micro", answer_format="chat")
    assert {*ARMS} - configs_of(base).keys() == {"rlp"}
    (rlp,) = (arm for arm in arms_named(base, ["rlp"]) if arm.name == "rlp")
    with pytest.raises(UserError, match="reward_rule is 'information-gain'; it needs answers of one token"):
        rlp.config(base)


# How wide an interval will be


@pytest.mark.parametrize(("positions", "seeds"), [(300, 1), (200, 4)])
def test_the_width_of_an_interval_is_predicted(positions: int, seeds: int) -> None:
    means = np.random.default_rng(0).normal(0.1, 0.5, (4000, positions * seeds)).mean(1)
    seen = (np.percentile(means, 97.5) - np.percentile(means, 2.5)) / 2
    predicted = expected_half_width(positions, seeds, 0.5)
    assert predicted == pytest.approx(seen, rel=0.05)
    assert expected_positions(predicted, seeds, 0.5) in (positions, positions + 1)


def test_the_spread_is_that_of_the_recorded_ablations() -> None:
    recorded = Comparison.read(ROOT / "data/micro/comparison")
    count = recorded.arms["rmt"].average.n
    close = ("rmt-no-budget", "rmt-no-curriculum", "rmt-random-tokens")
    spreads = [
        ((pair.high or 0) - (pair.low or 0)) / 2 / 1.96 * count**0.5
        for pair in recorded.paired
        if pair.tier == "average" and pair.b in close
    ]
    assert min(spreads) < SPREAD < max(spreads)


# What was recorded


def the_page() -> str:
    return " ".join((ROOT / "docs/replication.md").read_text(encoding="utf-8").replace("*", "").split())


@pytest.mark.parametrize("name", ["micro/comparison", "laptop/comparison"])
def test_the_page_shows_what_was_recorded(name: str) -> None:
    found, text = Comparison.read(ROOT / f"data/{name}"), the_page()
    for arm in found.arms.values():
        tiers = [share(one, "{0:.1f}") for one in (arm.easy, arm.medium, arm.hard)]
        assert f"| {' | '.join(tiers)} | {share(arm.average)} |" in text
    for pair in found.paired:
        if pair.tier == "average" and pair.b in ("ntp", "rmt-no-curriculum", "rmt-random-tokens"):
            middle, low, high = (abs(100 * (one or 0)) for one in (pair.difference, pair.low, pair.high))
            either = [rf"\[[-+]?{a:.1f}, [-+]?{b:.1f}\]" for a, b in ((low, high), (high, low))]
            assert re.search(rf"{middle:.1f} (points )?({'|'.join(either)})", text), pair


def test_the_page_shows_the_recorded_exams() -> None:
    exams = PostTraining.read(ROOT / "data/micro/comparison").exams
    for name, words in (("base", "untrained"), ("ntp", "NTP only"), ("rpt", "RPT"), ("rmt", "RMT")):
        cells = [
            share(one.pass_at[1], "{0:.0f}")
            for exam in (exams["micro"], exams["micro-text"])
            for one in exam.arms[name]
            if one.step in (0, 20, 60)
        ]
        assert f"| {words} | {' | '.join(cells)} |" in the_page()


def test_the_protocol_fixes_settings_and_claims_as_they_are() -> None:
    text = (ROOT / "data/PROTOCOL.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == PRESETS["abacus"]
    data = yaml.safe_load((ROOT / "rmt_mini/report/paper.yaml").read_text(encoding="utf-8"))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")][2:]
    ratios = {"RMT is more accurate than RPT", "RMT's thoughts are shorter than RPT's"}
    assert {claim for claim, against in rows if against.startswith("RPT, ")} == ratios
    assert rows[2:] == [[claim, SHOWN[arm]] for arm, claim in data["claims"].items()]


def test_the_protocol_says_of_the_dry_run_what_was_recorded() -> None:
    text = (ROOT / "data/PROTOCOL.md").read_text(encoding="utf-8")
    found = Comparison.read(ROOT / "data/abacus/dry")
    assert (found.bases, found.seeds, found.config.steps, found.config.corpus) == (3, [9300, 9301], 160, "abacus-dev")
    runs = [Evaluation.read(ROOT / f"data/abacus/dry/base-{base}") for base in range(3)]
    before, after = (
        [f"{100 * getattr(run, when).think.sorts['calculable'].accuracy:.0f}" for run in runs]
        for when in ("before", "after")
    )
    untrained, trained = (
        "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * end for end in (one.accuracy, one.low, one.high)))
        for one in (found.arms[name].sorts["calculable"] for name in ("base-ntr", "rmt"))
    )
    words = " ".join(text.split())
    assert "bases 0, 1 and 2 are right at {}, {} and {} % of calculable tokens".format(*before) in words
    assert f"over all bases and both seeds it is {untrained}" in words
    at, interval = trained.split(" [")
    assert f"RMT ends at {at} of calculable tokens [{interval}, and its three bases at " in words
    assert "its three bases at {}, {} and {} %".format(*after) in words


# Seeds


def test_seeds_are_read_as_one(tmp_path: Path) -> None:
    found = across_seeds([a_run(tmp_path, "rmt", seed, right, 6) for seed, right in ((0, 0.5), (1, 0.7), (5, 0.9))])
    assert found.seeds == [0, 1, 5]
    assert found.after is not None
    together = found.after.think.average
    assert together.accuracy == pytest.approx(0.7)
    assert together.n == 9 * DOCUMENTS
    assert found.after.ntp.sorts["calculable"].accuracy == pytest.approx(0.4)
    assert found.gain["calculable_think_after_minus_ntp_before"].difference == pytest.approx(0.3)
    assert found.length_change["all"].difference == pytest.approx(6 - 30)
    assert found.after.think.budget == 8
    low, high = ends(together)
    assert low < 0.6 < 0.8 < high


def test_seeds_have_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = Overlap(1, 71, "a run of 12 words")
    runs = [str(a_run(tmp_path, "rmt", seed, 0.7, 6, overlap=shared)) for seed in (0, 1)]
    main(["seeds", *runs, "--out", str(tmp_path / "all")])
    assert capsys.readouterr().out.startswith("next tokens right, %")
    report = (tmp_path / "all" / "report.md").read_text()
    assert "# 2 runs of RMT: preset custom, seeds 0, 1" in report
    assert "Where a short calculation determines the token, thinking after training passes plain prediction" in report
    assert "a change of -24.0 [-24.0, -24.0]" in report
    assert "No thoughts were sampled" not in report
    assert "Of 71 held-out texts 1 shares a run of 12 words with training text." in report
    assert json.loads((tmp_path / "all" / "evaluation.json").read_text())["seeds"] == [0, 1]
    assert (tmp_path / "all" / "accuracy.png").exists()


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"status": "interrupted"}, "is interrupted or has no answers"),
        ({"model_digest": "other"}, "differs from the first in model_digest, not in seed alone"),
        ({"config": RMTConfig(seed=1, steps=9)}, "differs from the first in steps,"),
        ({"seed": 0}, r"have seeds \[0, 0\]; give two or more runs of different seeds"),
    ],
)
def test_runs_that_do_not_belong_together(tmp_path: Path, notes: dict[str, Any], message: str) -> None:
    folders = [a_run(tmp_path, "rmt", 0, 0.5, 6), a_run(tmp_path, "rmt", 1, 0.5, 6, **notes)]
    with pytest.raises(UserError, match=message):
        across_seeds(folders)


def test_no_run_at_all(tmp_path: Path) -> None:
    for folders in ([tmp_path], []):
        with pytest.raises(UserError, match="give"):
            across_seeds(folders)
    with pytest.raises(UserError, match="is in use"):
        write_seeds_report([a_run(tmp_path, "rmt", 0, 0.5, 6)], tmp_path)


# Variants of a setting


def test_what_each_variant_changed(tmp_path: Path, png: Callable[[Figured], bytes]) -> None:
    rights = {"rmt": (0.5, 10), "budget_decay=0.1": (0.8, 5), "budget_decay=0.4": (0.5, 14), "group_size=4": (0.5, 10)}
    found = compared(tmp_path / "v", rights)
    first, second, last = rows = sensitivities(found, BASE_CONFIG)
    assert [(row.setting, row.value, row.default) for row in rows] == [
        ("budget_decay", "0.1", "0.2"),
        ("budget_decay", "0.4", "0.2"),
        ("group_size", "4", "8"),
    ]
    assert first.accuracy.difference == pytest.approx(0.3)
    assert 0 < ends(first.accuracy)[0] < 0.3 < ends(first.accuracy)[1]
    assert first.thought_length.model_dump(exclude={"n"}) == {"difference": -5, "low": -5, "high": -5}
    assert (second.thought_length.difference, last.accuracy.difference, last.operations) == (4, 0, 1.0)
    table = write_comparison_report(tmp_path, found, variants=rows)
    assert "| gamma (budget&#95;decay) | 0.2 | 0.1 | +30.0 [" in table
    text = (tmp_path / "report.md").read_text()
    assert "**Accuracy depends on gamma (0.1 +30.0)**: points against the preset's value." in text
    assert "**Whether it depends on G is inconclusive** from changes of this size." in text
    assert "Verdicts are corrected for their number (1, variants 3) by Holm's method" in text
    assert first.p is not None
    assert first.p < 0.05 / 3
    many = [first.model_copy(update={"p": 0.03, "value": str(n)}) for n in range(2)]  # each alone would be a verdict
    assert "Whether it depends on gamma is inconclusive" in page_of(tmp_path, found, variants=many)
    assert table in text
    assert (tmp_path / "figures" / "sensitivity.png").exists()
    drawn = plots.tornado(rows)
    assert png(drawn).startswith(b"\x89PNG")
    assert "budget_decay 0.1 (0.2) +30.0 (" in drawn.alt
    assert "group_size 4 (8) +0.0 (+0.0 to +0.0), around zero" in drawn.alt


# Over the values of a setting


def at_value(rmt: float, rpt: float, calculable: dict[str, float]) -> Comparison:
    """A comparison with these averages, and accuracies at calculable tokens where there are any."""
    arms, tiers = {}, Tiers(easy=cell(0.5), medium=cell(0.5), hard=cell(0.5), average=cell(0.5))
    for name, right in {"base-ntp": 0.1, "rpt": rpt, "rmt": rmt}.items():
        values = {**dict(row(0.5)), "average": cell(right), "row": "think", "plain": tiers, "seeds": 1}
        sorts = (
            {"calculable": cell(calculable[name]).model_copy(update={"thought_length": 3})}
            if name in calculable
            else {}
        )
        gated = {"gated": {"average": Mean(mean=right + 0.1, low=right, high=right + 0.2, n=100)}} if calculable else {}
        arms[name] = ArmRow(**values | {"sorts": sorts}, thought_length_interval=(1, 2), more=gated)
    gaps = {"average": rmt - rpt, **({"calculable": calculable["rmt"] - calculable["rpt"]} if calculable else {})}
    ends_of = {tier: {"difference": gap, "low": gap - 0.01, "high": gap + 0.01} for tier, gap in gaps.items()}
    pairs = [Pair(a="rmt", b="rpt", tier=tier, **found) for tier, found in ends_of.items()]
    given: dict[str, Any] = {"paired": pairs, "relative": {}, "lengths": {}, "machine": {}, "versions": {}}
    return Comparison(arms=arms, config=RMTConfig(corpus="abacus"), seeds=[0], **given)


def test_where_lines_cross_over_a_setting(tmp_path: Path, png: Callable[[Figured], bytes]) -> None:
    # RMT minus RPT: -0.1 at 0, 0 at 0.25, +0.1 at 0.5, +0.3 at 1; where calculable: +0.1 at 0.25, -0.3 at 0.5
    found = {
        0.0: at_value(0.3, 0.4, {}),
        0.25: at_value(0.4, 0.4, {"rmt": 0.5, "rpt": 0.4}),
        0.5: at_value(0.5, 0.4, {"rmt": 0.2, "rpt": 0.5}),
        1.0: at_value(0.7, 0.4, {"rmt": 0.3, "rpt": 0.5}),
    }
    map_over("calculation_share", found).write(tmp_path)
    made = Map.read(tmp_path)
    average, calculable = made.levels["average"], made.levels["calculable"]
    assert {arm: [one.accuracy for one in cells.values()] for arm, cells in average.arms.items()} == {
        "rpt": [0.4, 0.4, 0.4, 0.4],
        "rmt": [0.3, 0.4, 0.5, 0.7],
    }
    assert list(calculable.arms["rmt"]) == [0.25, 0.5, 1.0]
    gated, plain = made.levels["gated"], made.levels["plain"]
    assert {at: (one.accuracy, one.low) for at, one in gated.arms["rmt"].items()} == {
        0.25: (0.5, 0.4),
        0.5: (0.6, 0.5),
        1.0: (pytest.approx(0.8), 0.7),
    }
    assert [one.accuracy for one in plain.arms["rpt"].values()] == [0.5] * 4
    (one,), (other,) = average.crossings, calculable.crossings
    assert (one.ahead, one.behind, one.low, one.high) == ("rpt", "rmt", 0.0, 0.5)  # at 0.25 both are alike
    # the interval, a point to each side, leaves zero where the difference is a point
    assert (one.at, one.first, one.last) == pytest.approx((0.25, 0.225, 0.275))
    assert [change.low for change in average.differences["rpt"].values()] == pytest.approx([-0.11, -0.01, 0.09, 0.29])
    assert plain.differences == {}
    assert (other.ahead, other.behind, other.low, other.high) == ("rmt", "rpt", 0.25, 0.5)
    assert other.at == pytest.approx(0.25 + 0.25 * 0.1 / 0.4)
    plan = OverPlan(config=RMTConfig(corpus="abacus"), field="calculation_share", values=[*found], arms=[], seeds=1)
    table = write_map_report(tmp_path, plan, made)
    page = (tmp_path / "report.md").read_text()
    for line in (
        "# Accuracy over calculation_share: preset custom, text abacus, 1 seed at each value",
        "- **Average:** RPT and RMT cross between calculation_share 0 (RPT ahead) and 0.5 (RMT ahead), at 0.25 by "
        "linear interpolation (from 0.225 to 0.275).\n",
        "- **Calculable:** RMT and RPT cross between calculation_share 0.25 (RMT ahead) and 0.5 (RPT ahead), at 0.312",
        "| 1 | 40.0 [38.0, 42.0] | 70.0 [68.0, 72.0] | +30.0 [+29.0, +31.0] |\n",
        "[0.5](calculation_share=0.5/report.md)",
        "](figures/map-calculable.png)",
        "| 0 | 50.0 [48.0, 52.0] | 50.0 [48.0, 52.0] |\n",  # plain: no difference of two arms was computed
    ):
        assert line in page + table
    drawn = plots.over(average, "calculation_share")
    assert png(drawn).startswith(b"\x89PNG")
    assert "First is calculation_share 0, last 1. RMT minus RPT, in points: -10.0 [-11.0, -9.0] at 0, " in drawn.alt
    assert "+30.0 [+29.0, +31.0] at 1. RPT and RMT cross between" in drawn.alt
    (ring,) = [line.get_xydata() for line in drawn.figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert np.asarray(ring).tolist() == pytest.approx(np.array([[0.25, 40.0]]))


def test_lines_that_touch_or_part_do_not_cross() -> None:
    for pairs in ([(0.3, 0.4), (0.4, 0.4), (0.3, 0.4)], [(0.4, 0.4), (0.5, 0.4), (0.6, 0.4)]):
        made = map_over("steps", {float(n): at_value(*pair, {}) for n, pair in enumerate(pairs)})
        assert made.levels["average"].crossings == []
        assert plots.over(made.levels["average"], "steps").alt.endswith("at 2. No lines cross.")


def test_a_crossing_of_wide_intervals_may_lie_anywhere() -> None:
    found = {0.0: at_value(0.3, 0.4, {}), 1.0: at_value(0.5, 0.4, {})}
    wide = {"low": -0.2, "high": 0.2}
    for value, one in found.items():
        found[value] = one.model_copy(update={"paired": [pair.model_copy(update=wide) for pair in one.paired]})
    (cross,) = map_over("steps", found).levels["average"].crossings
    assert (cross.at, cross.first, cross.last) == (pytest.approx(0.5), None, None)


def test_a_map_has_room_for_differences_that_are_not_known(tmp_path: Path) -> None:
    found = {0.0: at_value(0.3, 0.4, {}), 1.0: at_value(0.5, 0.4, {})}
    without = [pair.model_copy(update={"low": None, "high": None}) for pair in found[0.0].paired]
    found = {0.0: found[0.0].model_copy(update={"paired": without}), 1.0: found[1.0].model_copy(update={"paired": []})}
    made = map_over("steps", found)
    (cross,) = made.levels["average"].crossings
    assert (cross.first, cross.last) == (None, None)
    plan = OverPlan(config=RMTConfig(), field="steps", values=[*found], arms=[], seeds=1)
    assert write_map_report(tmp_path, plan, made).endswith("| 1 | 40.0 [38.0, 42.0] | 50.0 [48.0, 52.0] | - |")
    assert (tmp_path / "figures/map.png").exists()


# Post-training


@pytest.fixture
def exam(tmp_path: Path) -> ExamOutcome:
    given = {"base": {0: 1, 20: 2, 40: 2}, "rpt": {0: 0, 20: 0, 40: 4}, "rmt": {0: 1, 20: 4, 40: 4}}
    runs = {name: [an_exam(tmp_path, name, seed, right) for seed in (0, 1)] for name, right in given.items()}
    plan = ExamPlan(arms=list(given), source="gym:chain_sum", count=90, samples=4, every=20)
    return ExamOutcome(**read_exams(runs), seeds=[0, 1], settings=plan)


def test_a_question_that_one_model_was_not_asked_counts_for_none(tmp_path: Path) -> None:
    runs = {name: [an_exam(tmp_path, name, 0, {0: 1, 20: right})] for name, right in {"base": 0, "rmt": 4}.items()}
    answers = runs["base"][0] / "answers.jsonl"
    answers.write_text("".join(line for line in answers.read_text().splitlines(True) if '"q1"' not in line))
    found = read_exams(runs)
    assert [found["arms"][name][1].pass_at[1].n for name in runs] == [29, 29]
    assert found["arms"]["rmt"][1].pass_at[1].accuracy == pytest.approx(14 / 29)  # q1 was right


def test_pass_at_k_over_seeds_and_questions(exam: ExamOutcome) -> None:
    rmt = exam.arms["rmt"]
    assert [one.step for one in rmt] == [0, 20, 40]
    assert [one.pass_at[1].accuracy for one in rmt] == pytest.approx([1 / 8, 1 / 2, 1 / 2])
    assert rmt[0].pass_at[4].accuracy == pytest.approx(1 / 2)  # one right answer of four is enough
    assert (rmt[0].pass_at[1].n, rmt[0].thought_length) == (60, 5.5)
    pairs = {(one.b, one.step, one.k): one for one in exam.paired}
    assert pairs["base", 40, 1].difference == pytest.approx(1 / 4)
    assert pairs["base", 40, 1].sign == 1
    assert pairs["base", 40, 4].difference == 0
    reach = 1 - 0.025 ** (1 / 30)  # equal answers to all of 30 questions
    assert ends(pairs["rpt", 40, 1]) == pytest.approx((-reach, reach))
    assert pairs["rpt", 40, 1].p == 1
    assert pairs["rpt", 20, 1].difference == pytest.approx(1 / 2)
    along = {(one.b, one.k): one for one in exam.along}
    assert along["base", 1].difference == pytest.approx((1 / 4 + 1 / 4) / 2)  # of steps 20 and 40
    assert along["rpt", 1].difference == pytest.approx((1 / 2 + 0) / 2)


def test_the_end_of_post_training_is_judged_and_reported(exam: ExamOutcome, whole: Comparison, tmp_path: Path) -> None:
    asked = "post-training on kinds of questions that no text has, RMT's model answers better than that of"
    assert {claim.text: claim.sign for claim in exam_claims(exam, "micro")} == {
        f"After 40 steps of {asked} the untrained model": 1,
        f"After 40 steps of {asked} RPT": 0,
    }
    head, _, *rows = exam_table(exam).splitlines()
    assert "pass@1, %, before | pass@1, %, after | pass@4, %, before" in head
    assert [line.split(" | ")[0] for line in rows] == ["| untrained", "| RPT", "| RMT"]
    page = page_of(tmp_path, whole, {"gym:chain_sum": exam})
    for line in (
        f"Verdicts are corrected for their number ({len(claims(whole))}, and after post-training 2) by Holm's method",
        "## Post-training: questions of gym:chain_sum",
        "(figures/posttraining-gym-chain_sum.png)",
        "| RMT | 24.08 -> 54.67 | 25.17 -> 64.33 |",
        "| 20 | +25.0 [",
        "| mean after 0 | +25.0 [",
        exam_table(exam),
        "RMT 12.5 at first and 50.0 at last (",
    ):
        assert line in page


def test_the_page_shows_the_recorded_run_of_the_main_job() -> None:
    found, text = Evaluation.read(ROOT / "data/laptop"), " ".join(the_page().split())
    assert found.before is not None
    assert found.cold_start is not None
    assert found.after is not None
    rows = {
        "plain prediction, before": found.before.ntp,
        "thinking, before": found.before.think,
        "thinking, after the cold start": found.cold_start.think,
        "thinking, after RMT": found.after.think,
        "plain prediction, after": found.after.ntp,
    }
    for name, found_row in rows.items():
        cells = [share(one, "{0:.1f}") for one in (found_row.easy, found_row.medium, found_row.hard)]
        length = f"{found_row.thought_length:.1f}" if "thinking" in name else "-"
        assert f"| {name} | {' | '.join(cells)} | {share(found_row.average)} | {length} |" in the_page()
    lengths = f"from {found.cold_start.think.thought_length:.1f} to {found.after.think.thought_length:.1f} tokens"
    gain, gap = found.gain["think_after_minus_cold_start"], found.gain["think_minus_ntp_after"]
    assert f"RMT itself adds {points(gain).replace(' [', ' points [')} in 60 steps, which is inconclusive" in text
    assert f"thoughts shrink {lengths}" in text
    assert f"plain prediction is inconclusive as well ({points(gap).replace(' [', ' points [')})" in text
    assert gain.sign == gap.sign == 0
    assert len(read_metrics(ROOT / "data/laptop")) == 60
