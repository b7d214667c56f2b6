from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rmt_mini.method.grpo import group_advantages, kl_estimate
from rmt_mini.teaching import bugs
from rmt_mini.teaching.bugs import BUGS, source, verdict
from rmt_mini.teaching.widgets.bugs import bug_explorer, bug_report

SENTENCES = {
    "it never stops": "the end token behind the last word takes no loss, as if it were filling",
    "KL through the roof": "the log-ratio has the wrong sign",
    "nan at once": "a group of one gets advantage nan: its deviation divides by G - 1, which is 0",
    "the text fades": "the targets are a view of them, and what is written there erases the text",
    "praise for the wrong one": "4 answers have 3 rewards: one that is no number got none",
    "a limp": "the last 2 are scaled as if they were 4",
    "thoughts collapse": "the places where the thought went on take no loss: closing becomes likelier everywhere",
}


def outputs(name: str, function: Callable[..., Any]) -> list[float]:
    """Call a function on a hand-made case; what comes out, as a flat list."""
    tokens = torch.tensor([4, 5, 6])
    case: dict[str, Callable[[], Any]] = {
        "it never stops": lambda: function(torch.tensor([[5, 0, 0]]), 0),
        "KL through the roof": lambda: function(torch.tensor([0.5]).log(), torch.tensor([0.25]).log()),
        "nan at once": lambda: function(torch.tensor([1.0, 0.0]), 2),
        "the text fades": lambda: (function(tokens, torch.tensor([True, False])), tokens)[1],
        "praise for the wrong one": lambda: function(("x", "7"), 7),
        "a limp": lambda: function([4.0, 4.0, 4.0], 2),
        "thoughts collapse": lambda: function(torch.tensor([0.1, 0.5]).log()),
    }
    flat: list[float] = torch.as_tensor(case[name]()).flatten().float().tolist()
    return flat


BY_HAND: dict[str, tuple[list[float], list[float]]] = {  # as found, repaired
    "it never stops": ([1, 0, 0], [1, 1, 0]),
    "KL through the roof": ([2 - math.log(2) - 1], [0.5 + math.log(2) - 1]),
    "nan at once": ([0.7071, -0.7071], [1.0, -1.0]),
    "the text fades": ([4, 5, 0], [4, 5, 6]),
    "praise for the wrong one": ([1.0], [0.0, 1.0]),
    "a limp": ([4.0, 2.0], [4.0, 4.0]),
    "thoughts collapse": ([-math.log(0.5)], [-(math.log(0.9) + math.log(0.5)) / 2]),
}


def test_there_are_seven_bugs_and_each_has_a_sentence() -> None:
    assert list(BUGS) == list(SENTENCES)
    assert all(bug.symptom.endswith(".") for bug in BUGS.values())


@pytest.mark.parametrize("name", BUGS)
def test_the_check_fails_where_the_slip_is_and_says_which(name: str) -> None:
    bug = BUGS[name]
    with pytest.raises(AssertionError, match=re.escape(SENTENCES[name])):
        bug.check(bug.buggy)
    assert SENTENCES[name] in verdict(bug, bug.buggy)
    assert verdict(bug, bug.buggy).startswith("fails: ")


@pytest.mark.parametrize("name", BUGS)
def test_the_check_passes_where_it_is_repaired(name: str) -> None:
    assert verdict(BUGS[name], BUGS[name].fixed) == "passes"


@pytest.mark.parametrize("name", BUGS)
def test_both_versions_do_what_they_do_by_hand(name: str) -> None:
    for function, wanted in zip((BUGS[name].buggy, BUGS[name].fixed), BY_HAND[name], strict=True):
        assert outputs(name, function) == pytest.approx(wanted, abs=1e-3)
    assert BY_HAND[name][0] != BY_HAND[name][1]


def test_a_closing_that_was_certain_and_did_not_come_has_a_finite_loss() -> None:
    assert torch.isfinite(bugs.closing_loss_repaired(torch.tensor([0.0, 0.0])))


@pytest.mark.parametrize("name", BUGS)
def test_what_is_seen_differs_and_is_quiet(name: str, recwarn: pytest.WarningsRecorder) -> None:
    bug = BUGS[name]
    before, after = bug.seen(bug.buggy), bug.seen(bug.fixed)
    assert before.alt != after.alt
    assert bug.seen(bug.buggy).alt == before.alt  # the same every time
    assert len(recwarn) == 0


def test_symptoms_show_what_their_sentences_say() -> None:
    def alt(name: str, fixed: bool = False) -> str:
        bug = BUGS[name]
        return bug.seen(bug.fixed if fixed else bug.buggy).alt

    assert "0.25 throughout" in alt("it never stops")
    assert float(re.findall(r"and (\d\.\d+) at last", alt("it never stops", True))[0]) > 0.9
    assert alt("nan at once").endswith("the advantage is nan and the weight after it nan.")
    assert "behind epoch 2: A lift _ _ floor _." in alt("the text fades")
    assert "“9” 1, “7” (none)" in alt("praise for the wrong one")
    lengths = [
        float(re.findall(r"and (\d+\.\d+) at last", alt("thoughts collapse", fixed))[0]) for fixed in (False, True)
    ]
    assert lengths[0] < 0.1
    assert 7 < lengths[1] < 9
    reported, exact = re.findall(r"0.00 at first and (\d+\.\d+) at last", alt("KL through the roof"))
    assert float(reported) > 10 * float(exact)


def test_other_slips_are_named_too() -> None:
    def every_place(tokens: torch.Tensor, end: int) -> torch.Tensor:
        return torch.ones_like(tokens, dtype=torch.bool)

    assert "filling behind the first end" in verdict(BUGS["it never stops"], every_place)
    assert "nothing to compare" in verdict(BUGS["nan at once"], lambda rewards, size: rewards)
    assert verdict(BUGS["the text fades"], lambda tokens, mask: tokens[1:].clone()).startswith("fails: the targets are")
    assert verdict(BUGS["praise for the wrong one"], lambda answers, truth: [0.0] * 4).startswith("fails: the rewards")
    assert "full steps" in verdict(BUGS["a limp"], lambda parts, every: [2.0, 2.0, 1.0])
    assert "closed does not" in verdict(BUGS["thoughts collapse"], lambda closing: closing.sum())
    assert verdict(BUGS["a limp"], lambda: 0).startswith("fails: TypeError")


def test_a_reader_cannot_see_the_slip_in_the_words_of_the_function() -> None:
    for bug in BUGS.values():
        found, repaired = source(bug.buggy), source(bug.fixed)
        assert re.findall('""".*"""', found) == re.findall('""".*"""', repaired)
        assert "#" not in found
        assert len(found.splitlines()) <= 12


def test_repaired_versions_agree_with_the_package() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.3, 0.9, 0.1, 0.2])
    torch.testing.assert_close(bugs.advantages_repaired(rewards, 4), group_advantages(rewards, 4))
    logprobs, reference = torch.tensor([-0.5, -2.0]), torch.tensor([-1.0, -0.1])
    torch.testing.assert_close(bugs.kl_of_sampled_repaired(logprobs, reference), kl_estimate(logprobs, reference))


def test_bug_explorer_shows_every_bug_both_ways() -> None:
    explorer = bug_explorer()
    assert explorer.controls["number"].max == len(BUGS)
    for number, (name, bug) in enumerate(BUGS.items(), 1):
        for repaired, function in ((False, bug.buggy), (True, bug.fixed)):
            explorer.controls["number"].value = number
            explorer.controls["repaired"].value = repaired
            assert explorer.alt == bug_report(number, repaired).alt
            story = "With the repaired function:" if repaired else bug.symptom
            told = f"Bug {number}, {name}. {story} {bug.seen(function).alt} The check {verdict(bug, function)}."
            assert explorer.alt == told
            page = explorer.children[-1].value
            assert f"def {function.__name__}(" in page
