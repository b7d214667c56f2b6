"""The quiz's questions are sound, and where the package can compute the answer, the right option is that answer."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import nbformat
import pytest
import torch

from rmt_mini.method import (
    TierSampler,
    assign_tiers,
    budget_at_step,
    group_advantages,
    length_reward,
    ntp_mask,
    prefix_match_reward,
    rl_loss,
    tier_probabilities,
    token_entropy,
    total_reward,
)
from rmt_mini.report.claims import PAPER
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.bugs import gradients_of_steps, gradients_of_steps_repaired
from rmt_mini.teaching.lessons import CHECKED, FOLDER, MARK, digest, lessons
from rmt_mini.teaching.question import Question
from rmt_mini.teaching.quiz import QUESTIONS, answer_sheet, letter, question_sheet
from rmt_mini.teaching.widgets.tree import count_step

BY_NAME = {question.name: question for question in QUESTIONS}


def right(name: str) -> str:
    question = BY_NAME[name]
    return question.options[question.right]


def number_in(words: str) -> int:
    return int(words.split()[0])


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_question_has_one_right_option_and_a_word_on_each(question: Question) -> None:
    assert 3 <= len(question.options) == len(question.why) <= 5
    assert question.right in range(len(question.options))
    for words in (question.options, question.why):
        assert len({one.casefold() for one in words}) == len(words)  # two alike could both be right
        assert all(one.strip() for one in words)
    assert all(len(one) >= 20 for one in question.why)


def test_names_are_unique_and_every_lesson_is_asked_about() -> None:
    assert len(BY_NAME) == len(QUESTIONS)
    numbers = [question.lesson for question in QUESTIONS]
    assert set(numbers) == {int(path.name[:2]) for path in lessons()}
    assert numbers == sorted(numbers)
    assert 25 <= len(QUESTIONS) <= 32


def test_where_the_right_option_stands_gives_nothing_away() -> None:
    places = Counter(question.right for question in QUESTIONS)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) <= len(QUESTIONS) / 3
    lengths = [[len(one) for one in question.options] for question in QUESTIONS]
    longest = [row[one.right] == max(row) for row, one in zip(lengths, QUESTIONS, strict=True)]
    shortest = [row[one.right] == min(row) for row, one in zip(lengths, QUESTIONS, strict=True)]
    assert 0 < sum(longest) < len(QUESTIONS) / 2
    assert 0 < sum(shortest) < len(QUESTIONS) / 2


def test_sheets_hold_every_question_and_only_one_tells_the_answers() -> None:
    asked, told = question_sheet(), answer_sheet()
    for number, question in enumerate(QUESTIONS, 1):
        for sheet in (asked, told):
            assert f"**{number}. {question.name}** (lesson {question.lesson})" in sheet
            assert question.asks in sheet
            assert all(option in sheet for option in question.options)
        assert f"(lesson {question.lesson}): **{letter(question.right)}**" in told
        assert all(why in told for why in question.why)
        assert not any(why in asked for why in question.why)
    assert asked.count("**") == 2 * len(QUESTIONS)  # nothing but the names stands out


# What the package can compute


def test_order_of_three_rewards() -> None:
    rewards = {
        "a": total_reward(1.0, length_reward(20, 10), 0.3),
        "b": total_reward(1.0, length_reward(5, 10), 0.3),
        "c": total_reward(0.0, length_reward(10, 10), 0.3),
    }
    assert right("Right but long") == " > ".join(sorted(rewards, key=lambda name: -rewards[name]))
    assert "0.7 + 0.3 * 0.5 = 0.85" in BY_NAME["Right but long"].why[3]
    assert [round(rewards[name], 9) for name in "bac"] == [0.85, 0.7, 0.3]


def test_byte_prefix_match_accepts_one_option() -> None:
    ends = (len(b"na"), len("naïve".encode()))
    assert ends == (2, 6)
    question = BY_NAME["Byte by byte"]
    accepted = [prefix_match_reward(one.strip('"'), "naïve", ends) for one in question.options]
    assert accepted == [float(place == question.right) for place in range(4)]


def test_without_token_ends_a_space_is_always_right() -> None:
    text = " every word of a text begins so"
    inside = range(1, len(text) + 1)  # what the rule would be without token ends: anywhere will do
    assert prefix_match_reward(" ", text, tuple(inside)) == 1.0
    assert prefix_match_reward(" ", text, (6, 11)) == 0.0
    assert "one space" in right("A rule left out")


def test_entropies_of_four_distributions() -> None:
    question = BY_NAME["Which is less decided?"]
    distributions = ([0.5, 0.5], [0.6, 0.39, 0.01], [0.8] + 5 * [0.04], [0.95, 0.05])
    entropies = [token_entropy(torch.tensor(one, dtype=torch.float64).log()).item() for one in distributions]
    assert max(range(4), key=entropies.__getitem__) == question.right
    for entropy, why in zip(entropies, question.why, strict=True):
        assert f"{entropy:.2f}" in why


def test_low_entropy_is_easy_whatever_is_true() -> None:
    assert assign_tiers(torch.tensor([0.1]), (0.5, 1.9)).tolist() == [0]
    assert right("Sure and wrong").startswith("Easy")


def test_budget_half_way() -> None:
    assert budget_at_step(50, 100, start=100, minimum=1, decay=0.25) == number_in(right("Half way"))
    assert budget_at_step(100, 100, start=100, minimum=1, decay=0.25) == 25


def test_a_group_of_wrong_answers_learns_length_alone() -> None:
    lengths = torch.tensor([10.0, 4.0, 20.0, 7.0, 12.0, 15.0, 2.0, 9.0])
    for only_if_correct, silent in ((False, False), (True, True)):
        rewards = total_reward(0.0, length_reward(lengths, 10), 0.2, only_if_correct)
        advantages = group_advantages(rewards, 8)
        assert bool((advantages == 0).all()) == silent
        if not silent:
            assert advantages.argsort().equal(length_reward(lengths, 10).argsort())
    assert right("All wrong").startswith("To keep to the budget")


def test_tier_probability_on_the_slope() -> None:
    easy, *_ = tier_probabilities(40, 100, early=(0.6, 0.3, 0.1), late=(0.2, 0.3, 0.5), start=0.3, end=0.7)
    assert easy * 100 == pytest.approx(number_in(right("On the slope")))


def test_an_empty_tier_gives_in_proportion() -> None:
    sampler = TierSampler(10, early=(0.5, 0.3, 0.2), late=(0.5, 0.3, 0.2))
    offered = torch.tensor([1, 2])
    drawn = [int(sampler.sample(offered, 1, step=0)) for _ in range(4000)]
    share = 100 * drawn.count(0) / len(drawn)
    assert share == pytest.approx(number_in(right("An empty tier")), abs=3)  # four deviations


def test_advantages_of_one_right_in_four() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    for scale, shown in ((False, "0.75 against -0.25"), (True, "1.73 against -0.58")):
        one, *others = group_advantages(rewards, 4, scale=scale).tolist()
        assert one == pytest.approx(-3 * others[0])
        assert f"{one:.2f} against {others[0]:.2f}" == shown
        assert shown in BY_NAME["One in four"].why[BY_NAME["One in four"].right]
    assert "three times" in right("One in four")


def test_shares_of_groups_with_a_signal() -> None:
    def share(p: float) -> float:
        return 1 - p**8 - (1 - p) ** 8

    assert f"{share(0.5):.0%}" == "99%"
    assert all(share(p) > 0.5 for p in (0.1, 0.3, 0.7, 0.9))  # no pass rate anywhere near explains 20 %
    assert share(1.0) == share(0.0) == 0
    assert "always or never" in right("Mean and groups")


def test_the_value_of_the_loss_is_nothing_while_its_gradient_is_not() -> None:
    logprobs = torch.full((4, 3), -1.0, requires_grad=True)
    loss = rl_loss(
        logprobs, group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4), torch.ones(4, 3, dtype=torch.bool),
        old_logprobs=logprobs.detach(), clip_epsilon=0.2,
    )  # fmt: skip
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logprobs.grad is not None
    assert logprobs.grad.norm() > 0.1
    assert right("A loss of nothing").startswith("Nothing")


def test_the_clip_does_not_hold_on_the_wrong_side() -> None:
    old = torch.tensor([[-2.0]])
    for advantage, clipped in ((-1.0, False), (1.0, True)):
        logprobs = (old + math.log(1.5)).requires_grad_()
        loss = rl_loss(logprobs, torch.tensor([advantage]), torch.tensor([[True]]), old_logprobs=old, clip_epsilon=0.2)
        loss.backward()
        assert logprobs.grad is not None
        assert (logprobs.grad.item() == 0) == clipped
    assert "not clipped" in right("The clip")


def test_tokens_of_the_next_token_loss() -> None:
    assert int(ntp_mask(12, chosen=[3, 7, 9]).sum()) == number_in(right("Who takes the next-token loss?"))


def test_tokens_of_a_tree_and_of_rows() -> None:
    counted = count_step(60, [30, 50], group_size=3, branch=10)
    question = BY_NAME["Tokens of a tree"]
    assert counted.tree_tokens == number_in(right("Tokens of a tree"))
    assert str(counted.rows_tokens) == question.options[3]
    assert str(3 * 40 + 3 * 60 + 60) == question.options[1]


def test_a_group_that_is_wrong_alike_is_silent() -> None:
    cut_off = total_reward(0.0, length_reward(torch.full((8,), 12.0), 6), 0.3)
    assert (group_advantages(cut_off, 8) == 0).all()
    assert "wrong alike" in right("Too short, too soon")


def test_numbers_of_the_paper_in_the_missing_row() -> None:
    full, without = PAPER["rmt"], PAPER["rmt-no-ntp"]
    assert f"from {full[-1]:.2f} to {without[-1]:.2f} %" in BY_NAME["The missing row"].asks


def test_pass_at_2_of_6() -> None:
    question = BY_NAME["Two of six"]
    assert f"{100 * pass_at_k(2, 6, 2):.0f} %" == right("Two of six")
    assert f"{100 * (1 - (4 / 6) ** 2):.0f} %" == question.options[1]
    assert f"{100 * pass_at_k(2, 6, 1):.0f} %" == question.options[0]


def test_the_last_partial_step() -> None:
    steps, repaired = gradients_of_steps([1.0] * 9, 4), gradients_of_steps_repaired([1.0] * 9, 4)
    assert steps[-1] / repaired[-1] == 0.25
    assert right("The last step of an epoch").startswith("A quarter")


def test_a_symmetric_case_cannot_see_a_sign() -> None:
    def k3(d: torch.Tensor) -> torch.Tensor:
        return d.exp() - d - 1

    symmetric, other = torch.tensor([1.3, -1.3, 0.4, -0.4]), torch.tensor([1.3, -0.2])
    assert k3(symmetric).mean().item() == pytest.approx(k3(-symmetric).mean().item())
    assert k3(other).mean().item() != pytest.approx(k3(-other).mean().item())
    assert right("A check that passes").startswith("No: turning all signs")


def test_no_question_speaks_of_a_machine() -> None:
    words: Any = answer_sheet()
    assert re.search(r"/(home|root|tmp|work)/", words) is None


# The notebook that asks them


def cells_of_quiz() -> list[Any]:
    return list(nbformat.read(FOLDER / "classroom" / "quiz.ipynb", as_version=4).cells)


def test_the_notebook_shows_the_questions_without_a_kernel_and_keeps_the_answers() -> None:
    code = [cell for cell in cells_of_quiz() if cell.cell_type == "code"]
    shown = "\n".join(
        output.get("text", "") or output.data.get("text/markdown", "") for cell in code for output in cell.outputs
    )
    assert question_sheet() in shown
    written = "\n".join(cell.source for cell in cells_of_quiz()) + shown
    assert not any(why in written for question in QUESTIONS for why in question.why)


def test_the_notebook_is_fresh_and_checked() -> None:
    code = [cell for cell in cells_of_quiz() if cell.cell_type == "code"]
    assert [cell.metadata.get(MARK) for cell in code] == [digest(cell.source) for cell in code]
    assert sum(CHECKED in cell.source and bool(cell.outputs) for cell in code) >= 2
    assert any(cell.source.endswith("quiz()") for cell in code)


def test_links_of_the_notebook_resolve() -> None:
    targets = [link for cell in cells_of_quiz() for link in re.findall(r"\]\(([^)]+)\)", cell.source)]
    assert targets
    assert all((FOLDER / "classroom" / target).exists() for target in targets)
