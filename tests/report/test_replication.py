"""The replication report quotes what was recorded, and its sentences have no other numbers."""

import json
import lzma
import re
import shutil
import tarfile
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy.stats import ttest_1samp

from rmt_mini import arms
from rmt_mini.config import preset
from rmt_mini.files import (
    ArmRow,
    Change,
    Comparison,
    ComparisonPlan,
    Evaluation,
    ExamEvaluation,
    ExamStep,
    Map,
    OverPlan,
    Pair,
    PostTraining,
)
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.schedule import budget_of
from rmt_mini.report.claims import PAPER, SHOWN, claims, corrected
from rmt_mini.report.markdown import points, share
from rmt_mini.report.plots import Figured
from rmt_mini.runs import pre_and_post, sweep
from rmt_mini.runs.compare import report
from rmt_mini.worlds.corpus import corpus_for
from rmt_mini.worlds.micro import WORLDS
from tests.quotes import PAGE, QUOTED, ROOT, quoted, section
from tests.record import record

MAIN, SECOND = ROOT / "data/abacus/comparison", ROOT / "data/abacus/second"
RUNS = {"depth": 36, "share": 45, "sayings": 12, "choice": 12, "budget": 12}  # of each map
MAPS = DEPTH, SHARE, SAYINGS, CHOICE, BUDGET = [ROOT / "data/abacus" / name for name in RUNS]
AT = {home: sorted(home.glob("*=*")) for home in MAPS}  # a comparison at each value
OF_RMT = re.compile(r"rmt(-base\d)?-seed\d+")  # a run's name


def test_quotations_are_those_of_the_recorded_reports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert quoted(page) == page


def test_a_quotation_follows_its_report() -> None:
    page = "A\n<!-- abacus/dry: claims -->\nold\n<!-- end -->\nB\n"
    made = quoted(page)
    assert made.startswith("A\n<!-- abacus/dry: claims -->\n\n- **RMT is more than training on the text")
    assert made.endswith("\n\n<!-- end -->\nB\n")
    assert "](../data/abacus/dry/figures/arms.png)" in section("abacus/dry", "Accuracy")
    with pytest.raises(KeyError):
        section("abacus/dry", "No such heading")


@pytest.mark.parametrize("home", [MAIN, SECOND], ids=["main", "second"])
def test_the_recorded_report_follows_from_the_recorded_answers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")  # other tests draw
    monkeypatch.setattr(pre_and_post, "report", lambda _: "")  # one report at the end has all exams
    shutil.copy(home / "compare.json", tmp_path)
    with tarfile.open(home / "runs.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for exam in sorted(tmp_path.glob("exams/*")):
        pre_and_post.go_on(exam, workers=1, progress=False)
    report(tmp_path)
    assert PostTraining.find(tmp_path) == PostTraining.find(home)
    again, recorded = Comparison.read(tmp_path), Comparison.read(home)
    where = {"machine": recorded.machine, "versions": recorded.versions}
    assert again.model_copy(update=where).model_dump_json() == recorded.model_dump_json()
    assert (tmp_path / "report.md").read_text() == (home / "report.md").read_text()
    record(tmp_path, tmp_path / "again", preset=0)
    unpacked = [lzma.decompress((path / "runs.tar.xz").read_bytes()) for path in (tmp_path / "again", home)]
    assert unpacked[0] == unpacked[1]


@pytest.mark.parametrize("home", MAPS, ids=RUNS)
def test_the_recorded_map_follows_from_the_recorded_answers(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")
    folder, values = tmp_path / home.name, AT[home]
    shutil.copytree(home, folder, ignore=lambda *_: ["figures", "map.json", "comparison.json", "report.md"])
    for value in values:
        with tarfile.open(value / "runs.tar.xz") as archive:
            archive.extractall(folder / value.name, filter="data")
    sweep.report(folder)
    for name in ("map.json", "report.md", *(f"{value.name}/report.md" for value in values)):
        assert (folder / name).read_text() == (home / name).read_text()
    packed = record(folder, tmp_path / "again", preset=0)
    assert len(packed) == RUNS[home.name]
    for value in values:
        assert Comparison.read(folder / value.name).paired == Comparison.read(value).paired
        of = [lzma.decompress((one / "runs.tar.xz").read_bytes()) for one in (tmp_path / "again" / value.name, value)]
        assert of[0] == of[1]


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"])
def test_sentences_have_no_other_intervals_than_the_record(page: Path) -> None:
    own = QUOTED.sub("", page.read_text(encoding="utf-8")).partition("## A real model")[0]
    found = re.findall(r"[-+]?\d+\.\d \[[-+]?\d+\.\d, [-+]?\d+\.\d\]", own)
    recorded = ""
    for home in (MAIN, SECOND, *chain(*AT.values())):
        compared = Comparison.read(home)
        differences = [points(pair) for pair in compared.paired if pair.difference is not None]  # by sort, too
        differences += [points(change, 1) for change in compared.lengths.values()]
        recorded += "\n".join([(home / "report.md").read_text(encoding="utf-8"), *differences])
    recorded += "\n".join(_matters(home) for home in EXPECTED)
    assert found
    assert [one for one in found if one not in recorded] == []


def test_sentences_say_what_the_tables_show() -> None:
    found, page = Comparison.read(MAIN), _said()
    rmt, ntp, rpt = (found.arms[name] for name in ("rmt", "ntp", "rpt"))
    assert rmt.compute is not None
    assert ntp.compute is not None
    assert round(rmt.compute.operations / ntp.compute.operations) == 7
    runs = _recorded(MAIN, "runs", Evaluation)
    plain = fmean(one.after.ntp.sorts["saying"].accuracy for name, one in runs.items() if OF_RMT.fullmatch(name))
    alone, thinking = (one.sorts["saying"].accuracy for one in (ntp, rmt))
    sayings = [f"{100 * (accuracy or 0):.0f}" for accuracy in (plain, alone, thinking)]
    assert "sayings plainly as well as NTP alone ({} and {} %), but only {} % of them".format(*sayings) in page
    own, *others = (rmt.more[name]["calculable"].mean for name in ("own", "other", "generic", "blank"))
    probed = [f"{100 * end:.0f}" for end in (own, min(others), max(others))]
    sentence = "right at {} % of the probed calculable tokens after its own thought, and at {} to {} %"
    assert sentence.format(*probed) in page
    assert f"gets it back, {100 * rmt.more['gated']['saying'].mean:.0f} % of sayings" in page
    longer = found.arms["ntp-equal-compute"]
    assert longer.compute is not None
    pairs = _pairs(found, "ntp-equal-compute")
    assert f"by {points(pairs['average'])} points, which is inconclusive. In {longer.compute.steps:,.0f} steps" in page
    mine, theirs = (100 * (one.sorts["calculable"].accuracy or 0) for one in (rmt, longer))
    assert f"{theirs:.0f} % of calculable tokens where RMT has {mine:.0f} ({points(pairs['calculable'])})" in page
    without, pairs = found.arms["rmt-no-ntp"], _pairs(found, "rmt-no-ntp")
    levels = [f"{100 * (one.average.accuracy or 0):.1f}" for one in (without, rpt)]
    levels_without_ntp = levels
    lengths = [f"{one.thought_length:.0f}" for one in (without, rpt)]
    assert "{} % where RPT has {}, with {} tokens where RPT has {}".format(*levels, *lengths) in page
    assert f"gives RMT {points(pairs['average'])} points, ahead in every run" in page
    gaps = points(pairs["saying"]), points(pairs["calculable"])
    assert "sayings differ by {} points, calculable tokens by {}.".format(*gaps) in page
    assert 0.45 < rmt.thought_length / rpt.thought_length < 0.55  # "half"
    long, pairs = found.arms["rmt-no-budget"], _pairs(found, "rmt-no-budget")
    assert long.compute is not None
    more = 100 * (long.compute.rl_tokens / rmt.compute.rl_tokens - 1)
    lengths = [f"{one.thought_length:.0f}" for one in (long, rmt)]
    brief = points(found.lengths["rmt-no-budget"], 1)
    assert "they take {} tokens where RMT's take {} ({}), for {:.0f} % more".format(*lengths, brief, more) in page
    gaps = [points(pairs[part]) for part in ("average", "saying", "calculable", "gated")]
    sentence = (
        "ahead by {} points, from every base and in five runs of six: sayings differ by {}, calculable tokens by {}."
    )
    assert sentence.format(*gaps[:3]) in page
    assert f"does as well without a budget ({gaps[3]})" in page
    assert all(mine > its for mine, its in zip(rmt.by_base, long.by_base, strict=True))
    assert 1.7 < long.thought_length / rmt.thought_length < 1.9  # "nearly twice as long"
    flat, pairs = found.arms["rmt-no-curriculum"], _pairs(found, "rmt-no-curriculum")
    gaps = [points(pairs[part]) for part in ("average", "calculable", "saying")]
    lengths = [f"{one.thought_length:.1f}" for one in (flat, rmt)]
    sentence = (
        "RMT minus the same tiers in no order is {} points, {} on calculable tokens and {} on sayings, with thoughts "
        "as long ({} and {} tokens)"
    )
    assert sentence.format(*gaps, *lengths) in page
    paper = PAPER["rmt"][3] - PAPER["rmt-no-curriculum"][3]
    assert f"the paper's {paper:+.2f} is outside the interval" in page
    assert 100 * (pairs["average"].high or 0) < paper
    gains = [rmt.more["gain"][sort] for sort in ("average", "calculable")]
    cells = [f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for one in gains]
    assert "its gain is {} bits, and {} at calculable tokens.".format(*cells) in page
    assert f"({100 * (long.compute.operations / rmt.compute.operations - 1):.0f} % more operations)" in page
    loose = next(arm for arm in ComparisonPlan.read(MAIN).arms if arm.name == "rmt-no-budget").config(found.config)
    caps = [thought_cap(budget_of(one, one.steps)) for one in (loose, found.config)]
    assert "{} tokens without a budget, as in RPT, and {} with it".format(*caps) in page
    shuffled, pairs = found.arms["rmt-shuffled-reward"], _pairs(found, "rmt-shuffled-reward")
    assert shuffled.compute is not None
    assert f"({shuffled.compute.operations / rmt.compute.operations:.2f} times RMT's operations)" in page
    own = [100 * (one.more["own"]["average"].mean or 0) for one in (ntp, shuffled, rmt)]
    alone = f"NTP alone is right at {own[0]:.0f} % of the probed positions"
    assert f"{alone}, this arm at {own[1]:.0f}, RMT at {own[2]:.0f}," in page
    short = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{alone}, shuffled at {own[1]:.0f}, RMT at {own[2]:.0f}." in short
    assert "without the NTP loss it ends at {} %, RPT at {}.".format(*levels_without_ntp) in short
    paper = 100 * (PAPER["rmt"][3] / PAPER["rpt"][3] - 1)
    gain = found.relative["rpt"]["accuracy"]
    assert gain is not None
    assert f"{paper:.1f} % over RPT, relative, is within the interval" in page
    assert 100 * gain.low < paper < 100 * gain.high
    levels = [f"{100 * one.average.accuracy:.1f}" for one in (shuffled, found.arms["base-ntr"])]
    sentence = "ends at {} %, where the untrained model is after a thought ({}): RMT is ahead by {} points"
    assert sentence.format(*levels, points(pairs["average"])) in page
    levels = [f"{100 * one.plain.average.accuracy:.1f}" for one in (shuffled, ntp)]
    assert "plain prediction is that of NTP alone ({} and {} %)".format(*levels) in page
    answering, pairs = found.arms["rl-no-think"], _pairs(found, "rl-no-think")
    levels = [f"{100 * one.average.accuracy:.1f}" for one in (answering, ntp)]
    assert "ends at {} %, below NTP alone ({}).".format(*levels) in page
    gaps = points(pairs["average"]), points(pairs["calculable"])
    assert "RMT is ahead by {} points, and by {} on calculable tokens".format(*gaps) in page
    pairs = _pairs(found, "rmt-random-tokens")
    assert f"RMT minus RMT on random positions is {points(pairs['average'])} points" in page
    forms = {"rmt-random-tokens": "{0:.0f} % [{1:.0f}, {2:.0f}]", "rmt": "{0:.0f} in RMT"}
    cells = [share(found.arms[arm].sorts["calculable"], form) for arm, form in forms.items()]
    assert "calculable tokens are right at {}, and at {};".format(*cells) in page
    hard_first = points(_pairs(found, "rmt-reversed-curriculum")["average"])
    assert f"From hard to easy does no worse either: {hard_first} points for easy to hard." in page
    assert f"({len(runs)} runs, 2026" in page
    ahead = [100 * (mine - its) for mine, its in zip(rmt.by_base, ntp.by_base, strict=True)]
    cells = [f"{one:+.1f}" for one in ahead]
    odds = _pairs(found, "ntp")["average"].p, ttest_1samp(ahead, 0).pvalue
    sentence = "which holds with p {:.5f}. With bases alone ({}, {} and {} points) p would be {:.3f}, at the edge"
    assert sentence.format(odds[0], *cells, odds[1]) in page
    train, held_out = corpus_for(found.config).split(found.config.evaluation_fraction)
    sayings = WORLDS["abacus"].sayings
    assert f"one of {len(sayings)} fixed sentences" in page
    for side in (train, held_out):
        assert all(any(one in document.text for document in side) for one in sayings)
    assert {*arms.ARMS} <= {*found.arms}  # "all runs"
    plan = ComparisonPlan.read(MAIN)
    assert (plan.bases, plan.seeds, plan.control_seeds) == (3, 2, 1)  # as in the protocol
    rlp, untrained = found.arms["rlp"], found.arms["base-ntr"]
    assert rlp.compute is not None
    assert f"RLP's arm ends at {100 * rlp.average.accuracy:.1f} %, where the untrained model is after" in page
    assert abs(rlp.average.accuracy - untrained.average.accuracy) < 0.01
    levels = [100 * (one.sorts["calculable"].accuracy or 0) for one in (rlp, without)]
    assert (
        "{:.0f} % of calculable tokens where RMT without the NTP loss has {:.0f}, and no reading".format(*levels)
        in page
    )
    bits = [one.more["bits_after"]["average"] for one in (rlp, untrained)]
    sentence = "the true token costs {0.mean:.2f} bits [{0.low:.2f}, {0.high:.2f}], before training {1.mean:.2f}."
    assert sentence.format(*bits) in page
    assert f"is {100 * (rpt.average.accuracy - rlp.average.accuracy):.0f} points ahead of it" in page
    easy = rlp.compute.rl_tokens_by_tier[0] / rlp.compute.rl_tokens
    assert f"{100 * easy:.0f} % of its RL tokens go to the easy tier" in page
    sft, pairs = found.arms["sft"], _pairs(found, "sft")
    assert f"{points(pairs['average'])} points (p {pairs['average'].p:.3f} alone" in page
    assert f"keeps the sayings ({100 * (sft.sorts['saying'].accuracy or 0):.0f} %)" in page
    names = [f"{arm}{base}-seed5000" for arm in ("sft", "rmt") for base in ("", "-base1", "-base2")]
    calculated = [100 * (runs[name].after.think.sorts["calculable"].accuracy or 0) for name in names]
    sentence = "{:.0f}, {:.0f} and {:.0f} % of calculable tokens by base, where RMT from the same seed has {:.0f}, "
    assert (sentence + "{:.0f} and {:.0f}.").format(*calculated) in page
    constant, pairs = found.arms["rmt-short-budget"], _pairs(found, "rmt-short-budget")
    sentence = "as long ({:.1f} tokens), and the decay gives {} points"
    assert sentence.format(constant.thought_length, points(pairs["average"])) in page
    letter, pairs = found.arms["rmt-paper"], _pairs(found, "rmt-paper")
    sentence = (
        "end at {:.1f} %, with thoughts of {:.0f} tokens; RMT with settings found for this text on development pages is"
    )
    assert sentence.format(100 * letter.average.accuracy, letter.thought_length) in page
    assert f"pages is ahead by {points(pairs['average'])} points (p {pairs['average'].p:.3f} alone" in page
    levels = [100 * one.plain.average.accuracy for one in (letter, rmt)]
    assert "plain prediction ends at {:.1f} % where RMT's is at {:.1f}".format(*levels) in page
    config = found.config.replace(**arms.ARMS["rmt-paper"]["set"])
    ends = [budget_of(one, step) for one in (config, preset("paper")) for step in (0, one.steps)]
    assert (
        "falls from {} tokens to {}, too few for a calculation, where the paper's falls from {} to {}".format(*ends)
        in page
    )
    untrained = found.arms["base-ntp"].sorts["calculable"].accuracy
    assert untrained is not None
    assert max(others) < untrained  # "no more often than before training"
    short = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in (*arms.MAIN, *arms.BASE, "ntp-equal-compute"):
        arm = found.arms[name]
        tiers = " | ".join(share(one, "{0:.1f}") for one in (arm.easy, arm.medium, arm.hard))
        assert f"| {SHOWN[name]} | {tiers} | {share(arm.average)} |" in short.replace("*", "")


def test_rmt_is_ahead_of_reading_alone_and_of_itself_without_reading_in_every_run() -> None:
    after = {name: one.after for name, one in _recorded(MAIN, "runs", Evaluation).items() if one.after}
    runs = [name.removeprefix("rmt") for name in after if OF_RMT.fullmatch(name)]
    assert len(runs) == 6
    for run in runs:
        rmt, without = (after[f"{arm}{run}"].think.average.accuracy or 0 for arm in ("rmt", "rmt-no-ntp"))
        assert rmt > (after[f"ntp{run}"].ntp.average.accuracy or 1)
        assert rmt > without
    ends = {name: one.think.average.accuracy or 0 for name, one in after.items()}
    assert sum(ends[f"rmt{run}"] > ends[f"rmt-no-budget{run}"] for run in runs) == 5


def test_sentences_on_post_training_say_what_the_exams_show() -> None:
    exams, page = PostTraining.read(MAIN).exams, _said()
    one, every = (exams[name].arms for name in ("abacus-text", "abacus-all"))

    def right(steps: list[ExamStep], place: int) -> str:
        return f"{100 * (steps[place].pass_at[1].accuracy or 0):.0f}"

    begin = [right(one[name], 0) for name in ("rmt", "rpt", "base")]
    assert "begin with {} and {} % right, the untrained models with {} %".format(*begin) in page
    others = sorted(int(right(every[name], 0)) for name in ("base", "ntp", "rpt"))
    assert f"RMT begins with {right(every['rmt'], 0)} % right, all others with {others[0]} to {others[-1]} %" in page
    assert all(int(right(steps, place)) < 20 for steps in (every["ntp"], every["rpt"]) for place in range(7))
    assert "RMT ends at {:.0f}, {:.0f} and {:.0f} %".format(*(100 * base for base in every["rmt"][-1].by_base)) in page
    ends = [right(arms[name], -1) for arms in (one, every) for name in ("ntp", "base")]
    assert "at {} against {} % and {} against {} %; the protocol".format(*ends) in page
    assert round(one["rpt"][0].thought_length) == 50
    found = [pair.p for exam in exams.values() for pair in exam.paired if (pair.k, pair.step) == (1, 120)]
    assert len(found) == 6
    assert min(one for one in found if one is not None) * 6 > 0.05  # "none of the six is conclusive"


def test_what_is_said_of_every_run_of_an_exam() -> None:
    one, every = (_ends(exam) for exam in ("abacus-text", "abacus-all"))
    runs = [name.removeprefix("rmt") for name in every if OF_RMT.fullmatch(name)]
    assert len(runs) == 6
    assert all(every[f"rmt{run}"] > every[f"{other}{run}"] for run in runs for other in ("rpt", "ntp"))
    assert all(every[f"ntp{run}"] < every[f"base{run}"] for run in runs)
    assert sum(one[f"ntp{run}"] > one[f"base{run}"] for run in runs) == 2
    worst = min(one[f"ntp{run}"] for run in runs)
    sentence = f"the difference is mostly one run, which ends at {100 * worst:.0f} %, while two end above."
    assert sentence in _said()
    gaps = [one[f"base{run}"] - one[f"ntp{run}"] for run in runs]
    assert max(gaps) > sum(gaps) / 2  # "mostly one run"


def test_sentences_on_the_second_comparison_say_what_it_shows() -> None:
    found, page = Comparison.read(SECOND), _said()
    over_rpt, over_ntp = (_pairs(found, name) for name in ("rpt", "ntp"))
    rmt, rpt, ntp = (found.arms[name] for name in ("rmt", "rpt", "ntp"))
    ahead = [sum(m > o for m, o in zip(rmt.by_base, other.by_base, strict=True)) for other in (rpt, ntp)]
    gaps = [points(over_rpt[part]) for part in ("average", "saying", "calculable")]
    lengths = [f"{one.thought_length:.0f}" for one in (rmt, rpt)]
    sentence = "ahead by {} points, from {} of 5 bases, with {} tokens where RPT has {}. All of it is reading"
    assert sentence.format(gaps[0], ahead[0], *lengths) in page
    assert "sayings differ by {}, calculable tokens by {}.".format(*gaps[1:]) in page
    average, gated = points(over_ntp["average"]), points(over_ntp["gated"])
    assert f"ahead of NTP only from {ahead[1]} of 5 bases, and {average} on average" in page
    assert f"With a gate of its own each, RMT is at {gated} points over NTP only" in page
    signs = {claim.text: claim.sign for claim in corrected(claims(found))}
    assert sorted(signs.values()) == [0, 1, 1, 1]
    assert signs["RMT is more than training on the text (NTP only, equal steps)"] == 0
    runs = _recorded(SECOND, "runs", Evaluation)

    def calculable(run: str, when: str) -> float:
        row = getattr(runs[run], when).think.sorts["calculable"]
        return round(100 * (row.accuracy or 0))

    four = ["rmt-seed5300", *(f"rmt-base{base}-seed5300" for base in (1, 2, 3))]
    begin, end = ([calculable(run, when) for run in four] for when in ("before", "after"))
    edges = min(begin), max(begin), min(end), max(end)
    sentence = "at {} to {} % of calculable tokens after a thought before they are trained, and end at {} to {} %"
    assert sentence.format(*edges) in page
    moments = (("rmt", "before"), ("rmt", "after"), ("rpt", "after"))
    last = [calculable(f"{arm}-base4-seed5300", when) for arm, when in moments]
    assert "begins at {} % and ends at {} under RMT and at {} under RPT".format(*last) in page
    assert f"RMT loses {100 * (ntp.by_base[4] - rmt.by_base[4]):.0f} points to reading alone" in page
    gains = [100 * (mine - its) for mine, its in zip(rmt.by_base[:4], ntp.by_base, strict=False)]
    assert f"For the other four it is {min(gains):+.1f} to {max(gains):+.1f} points, below the first" in page
    short = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"for the others it is {min(gains):+.1f} to {max(gains):+.1f}." in short
    first = _recorded(MAIN, "runs", Evaluation)
    asked = []
    for those in ([runs[run] for run in four], [one for name, one in first.items() if OF_RMT.fullmatch(name)]):
        of = [sum(one.after.think.sorts[sort].n for one in those) for sort in ("calculable", "saying")]
        asked += [100 * number / sum(one.after.think.average.n for one in those) for number in of]
    sentence = (
        "of the four's positions {:.0f} % are calculable and {:.0f} % sayings, of the first three's {:.0f} and {:.0f} %"
    )
    assert sentence.format(*asked) in page
    levels = [100 * one.average.accuracy for one in (rmt, rmt.plain)]
    assert "than its own plain prediction ({:.1f} and {:.1f} %)".format(*levels) in page
    gain = rmt.more["gain"]["average"]
    assert f"a thought costs it {-gain.mean:.2f} bits [{-gain.high:.2f}, {-gain.low:.2f}]" in page


def test_sentences_on_depth_say_what_the_map_shows() -> None:
    levels, page = Map.read(DEPTH).levels, _said()
    over_ntp = [points(change) for change in levels["gated"].differences["ntp"].values()]
    assert "depth**: {} points over NTP only at one move, {} at two, {} at three, {} at four.".format(*over_ntp) in page
    over_ntp = [points(change) for change in levels["average"].differences["ntp"].values()]
    assert f"not for certain**: from {over_ntp[0]} at one move to {over_ntp[-1]} at four." in page
    arms = [Comparison.read(home).arms for home in AT[DEPTH]]

    def ends(arm: str, sort: str) -> list[float]:
        found = [one[arm].sorts[sort].accuracy for one in arms if sort in one[arm].sorts]
        return [min(found), max(found)]

    of = [round(100 * one) for one in (*ends("rmt", "saying"), *ends("ntp", "saying"))]
    assert "right at {} to {} % of sayings after one, and NTP only at {} to {}.".format(*of) in page
    cells = [[one["rmt"].sorts.get(sort) for one in arms] for sort in ("calculable", "saying")]
    asked = [[100 * one.n / 1350 if one else 0 for one in row] for row in cells]
    assert all(one["rmt"].average.n == 1350 for one in arms)
    shares = "none is calculable at one move, and {:.0f}, {:.0f} and {:.0f} % are at two, three and four"
    assert asked[0][0] == 0
    assert f"{shares.format(*asked[0][1:])}, while sayings fall from {asked[1][0]:.0f} to {asked[1][-1]:.0f} %" in page
    leads = [points(change) for change in levels["calculable"].differences["ntp"].values()]
    of = [round(100 * one) for one in (*ends("rmt", "calculable"), *ends("ntp", "calculable"))]
    same = "RMT's lead is {}, {} and {} points at these depths: it is right at {} to {} % of them, NTP only at"
    assert f"{same} {{}} to {{}}.".format(*leads, *of) in page
    least, most = _ahead_of_rpt(DEPTH, "depth", page)["calculable"]
    assert f"RPT is ahead by {-most} to {-least} points, intervals include zero" in page
    assert [one.sign for one in levels["calculable"].differences["rpt"].values()] == [0, 0, 0]


def test_sentences_on_the_share_of_calculations_say_what_the_map_shows() -> None:
    found, page = Map.read(SHARE), _said()
    gated = [points(change) for change in found.levels["gated"].differences["ntp"].values()]
    words = (
        "the share**: {} points over NTP only where no document has a calculation, then {}, {} and {}, and {} where all"
    )
    assert words.format(*gated) in page
    assert [one.sign for one in found.levels["gated"].differences["ntp"].values()] == [0, 0, 0, 0, 1]
    average = found.levels["average"]
    ends = [points(change) for change in average.differences["ntp"].values()]
    assert f"little to calculate**: {ends[0]} points where there is nothing, {ends[-1]} where all documents" in page
    (cross,) = average.crossings
    assert (cross.behind, cross.last) == ("rmt", None)
    assert f"at a share of {cross.at:.2f}, or anywhere from {cross.first:.2f} on." in page
    rmt, *others = map(found.levels["calculable"].arms.__getitem__, ("rmt", "rpt", "ntp"))
    right = [share(rmt[value], "{:.0f} % [{:.0f}, {:.0f}]") for value in (0.25, 1.0)]
    right += [share(row[value], "{0:.0f}") for row in others for value in (0.25, 1.0)]
    words = "right at {} of calculable tokens where a quarter of the documents have one, and at {} where all have;"
    assert f"{words} RPT at {{}} and {{}}, NTP only at {{}} and {{}}. The intervals overlap.".format(*right) in page
    assert rmt[0.25].high > rmt[1.0].low
    costs = [one["rmt"].compute.operations / one["ntp"].compute.operations for one in map(_arms, AT[SHARE] + AT[DEPTH])]
    sentence = f"RMT takes {min(costs):.0f} to {max(costs):.0f} times the operations of NTP only"
    assert sentence in page
    for home, of in ((SHARE, "{} of {} shares."), (DEPTH, "{} of {} depths.")):
        signs = [one.sign for one in Map.read(home).levels["average"].differences["rpt"].values()]
        assert f"the interval includes zero at {of.format(signs.count(0), len(signs))}" in page
    _ahead_of_rpt(SHARE, "share", page)
    for what, sentence in (("gated", "from NTP only is {} to {} points"), ("average", "the ungated one {} to {}.")):
        both = [Map.read(home).levels[what].differences["ntp"].values() for home in (DEPTH, SHARE)]
        gaps = [100 * one.difference for row in both for one in row]
        assert len(gaps) == 9
        assert sentence.format(f"{min(gaps):+.1f}", f"{max(gaps):+.1f}") in page


def test_sentences_on_what_the_ntp_loss_is_for_say_what_the_runs_show() -> None:
    page, levels = _said(), Map.read(SAYINGS).levels
    none, two = levels["average"].differences["rmt-no-ntp"].values()
    sentence = f"without it is {points(two)} points with two sayings a document, and {points(none)} with none."
    assert f"{sentence} The difference of the two is {_matters(SAYINGS)} points" in page
    assert (none.sign, two.sign) == (0, 1)
    pairs = [_pairs(Comparison.read(home), "rmt-no-ntp") for home in AT[SAYINGS]]
    read, right = (points(pairs[1][sort]) for sort in ("saying", "calculable"))
    assert f"With two sayings, sayings differ by {read} points and calculable tokens by {right}; with none," in page
    assert f"with none, calculable tokens differ by {points(pairs[0]['calculable'])}." in page


def test_sentences_on_what_the_choice_of_tokens_is_for_say_what_the_runs_show() -> None:
    page, arm, where = _said(), "rmt-random-tokens", "where one document in ten has a calculation"
    rare, full = (points(one) for one in Map.read(CHOICE).levels["average"].differences[arm].values())
    assert f"RMT minus RMT on random tokens is {rare} points {where}, and {full} where all have one; the" in page
    assert f"difference of the two is {_matters(CHOICE)} points." in page
    found = [_pairs(Comparison.read(home), arm)["calculable"] for home in AT[CHOICE]]
    assert "calculable tokens differ by {} and {} points.".format(*map(points, found)) in page
    arms = [_arms(home) for home in AT[CHOICE]]
    asked = [one["rmt"].sorts["calculable"].n for one in arms]
    assert f"{asked[0]} of the {1350:,} answers {where}, {asked[1]} where all have." in page
    easy = [one[name].compute.rl_tokens_by_tier for name in ("rmt", arm) for one in arms]
    shares = [f"{100 * one[0] / sum(one):.0f}" for one in easy]
    assert "In RMT {} and {} % of the RL tokens go to easy positions, of random ones {} and {}".format(*shares) in page


def test_sentences_on_what_the_budget_is_for_say_what_the_runs_show() -> None:
    page, arm = _said(), "rmt-no-budget"
    short, long = Map.read(BUDGET).levels["average"].differences[arm].values()
    assert (short.sign, long.sign) == (1, 0)
    sentence = (
        "RMT minus RMT without budget is {} points where thoughts are closed after {} tokens, and {} where they may"
    )
    plan = OverPlan.read(BUDGET)
    caps = [thought_cap(int(value)) for value in plan.values]
    assert f"{sentence.format(points(short), caps[0], points(long))} have {caps[1]}." in page
    assert f"The difference of the two is {_matters(BUDGET)} points." in page
    arms = [_arms(home) for home in AT[BUDGET]]
    closed = [100 * arms[0][name].closed_share for name in (arm, "rmt")]
    assert (
        "{:.0f} % of the thoughts of RMT without budget have closed by themselves, where RMT's have in {:.0f} %".format(
            *closed
        )
        in page
    )
    found = [_pairs(Comparison.read(home), arm) for home in AT[BUDGET]]
    gaps = [points(one[sort]) for sort in ("calculable", "saying") for one in found]
    sentence = "calculable tokens differ by {} points; under 112 tokens by {}. Sayings differ in both, by {} and {}:"
    assert sentence.format(*gaps) in page
    loose = next(one for one in ComparisonPlan.read(AT[BUDGET][0]).arms if one.name == arm).config(plan.config)
    assert f"without a budget under a cap of {thought_cap(budget_of(loose, 0))} (" in page


EXPECTED = {SAYINGS: ("rmt-no-ntp", 1), CHOICE: ("rmt-random-tokens", 0), BUDGET: ("rmt-no-budget", 0)}  # matters where


def _matters(home: Path) -> str:
    """Return RMT minus an arm where that should matter, less where it should not, as of independent differences."""
    arm, where = EXPECTED[home]
    both = [*Map.read(home).levels["average"].differences[arm].values()]
    half = sum(((one.high - one.low) / 2) ** 2 for one in both) ** 0.5
    gap = both[where].difference - both[1 - where].difference
    return points(Change(difference=gap, low=gap - half, high=gap + half))


def test_the_table_of_thoughts_is_the_record_and_its_sentences_follow() -> None:
    page = _said()
    made = json.loads((SECOND / "thoughts.json").read_text(encoding="utf-8"))
    parts = ("calculates", "start", "moves", "steps", "whole", "right")
    for base, (before, after) in enumerate(zip(made["before"], made["after"], strict=True)):
        shown = ["-" if one is None else f"{100 * one:.0f}" for part in parts for one in (before[part], after[part])]
        cells = [f"{shown[place]} -> {shown[place + 1]}" for place in range(0, len(shown), 2)]
        assert f"| {base} | {' | '.join(cells)} |" in page
    *others, last = made["before"]
    assert min(one["calculates"] for one in others) < last["calculates"] < max(one["calculates"] for one in others)
    assert last["steps"] > others[2]["steps"]
    assert last["start"] < 0.5 * min(one["start"] for one in others)
    assert last["moves"] < 0.5 * min(one["moves"] for one in others)
    assert f"so that {100 * last['whole']:.0f} % of its calculations are right" in page
    with tarfile.open(SECOND / "runs.tar.xz") as archive:
        names = [f"runs/rmt{base}-seed5300/metrics.jsonl" for base in ("", *(f"-base{base}" for base in range(1, 5)))]
        found = [archive.extractfile(name) for name in names]
        lines = [[json.loads(line) for line in file or ()] for file in found]
    *signals, guessed = (f"{100 * fmean(line['signal_groups'] for line in run):.0f}" for run in lines)
    assert f"{guessed} % of base 4's over all steps, {min(signals)} to {max(signals)} % of the others'" in page


def _ahead_of_rpt(home: Path, of: str, page: str) -> dict[str, tuple[int, int]]:
    """Return from where to where RMT minus RPT goes, by level, and look for the sentence that says so."""
    gaps = {
        what: [round(100 * one.difference) for one in level.differences["rpt"].values()]
        for what, level in Map.read(home).levels.items()
        if level.differences
    }
    found = {what: (min(row), max(row)) for what, row in gaps.items()}
    ends = (*found["average"], *found["gated"])
    assert "RMT is ahead by {} to {} points at each {of}, and with the gate by {} to {}".format(*ends, of=of) in page
    return found


def _arms(home: Path) -> dict[str, ArmRow]:
    return Comparison.read(home).arms


def _said() -> str:
    return " ".join(PAGE.read_text(encoding="utf-8").split())


def _pairs(found: Comparison, arm: str) -> dict[str, Pair]:
    """Return RMT minus an arm, by tier and sort."""
    return {one.tier: one for one in found.paired if one.b == arm}


def _ends(exam: str) -> dict[str, float]:
    """Return pass@1 at the end of an exam, run by run."""
    found = _recorded(MAIN, f"exams/{exam}", ExamEvaluation)
    return {name: one.after.pass_at[1].accuracy or 0.0 for name, one in found.items()}


@cache
def _recorded(home: Path, folder: str, kind: Any) -> dict[str, Any]:
    """Return what the runs in a folder of an archive came to; to unpack it takes a second."""
    with tarfile.open(home / "runs.tar.xz") as archive:
        members = [one for one in archive if re.fullmatch(rf"{folder}/[\w-]+/evaluation\.json", one.name)]
        texts = {Path(one.name).parent.name: archive.extractfile(one).read() for one in members}
    return {name: kind.model_validate_json(text) for name, text in texts.items()}
