"""Seven bugs that real training code has had, each in a few lines of our own: what one sees, the slip, the repair.

Every bug is a pair of functions with one signature. ``seen`` shows what a user would see of either; ``check`` tells
them apart, and names the slip. The faulty functions say what they are meant to do and not what is wrong with them: that
is for the reader to find.
"""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmt_mini.report.plots import Figured, symptom_curves
from rmt_mini.report.plots.of_text import Marked

BUDGET = 8  # tokens, of the thoughts in bug 7
_CELL = "border: 1px solid #999; padding: 0.2em 0.6em; background: #fff; color: #000; text-align: left"


@dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes:
        name: after what one sees.
        symptom: in a sentence.
        buggy: the function at fault.
        fixed: what it should be.
        seen: shows what a user sees with either of them.
        check: raises an AssertionError that names the slip where a function has it.
    """

    name: str
    symptom: str
    buggy: Callable[..., Any]
    fixed: Callable[..., Any]
    seen: Callable[[Callable[..., Any]], Figured | Marked]
    check: Callable[[Callable[..., Any]], None]


def source(function: Callable[..., Any]) -> str:
    """Return the source of a function of this room."""
    return inspect.getsource(function).rstrip()


def verdict(bug: Bug, function: Callable[..., Any]) -> str:
    """Say in a line what the bug's check makes of a function.

    Example:
        >>> verdict(BUGS["nan at once"], advantages)
        'fails: a group of one gets advantage nan: its deviation divides by G - 1, which is 0'
        >>> verdict(BUGS["nan at once"], advantages_repaired)
        'passes'
    """
    try:
        bug.check(function)
    except AssertionError as error:
        return f"fails: {error}"
    except Exception as error:  # a reader's own function may raise anything
        return f"fails: {type(error).__name__}: {error}"
    return "passes"


def _require(true: bool, told: str) -> None:
    if not true:
        raise AssertionError(told)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], alt: str) -> Marked:
    head = "".join(f'<th scope="col" style="{_CELL}">{html.escape(name)}</th>' for name in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{html.escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return Marked(f'<table style="border-collapse: collapse"><tr>{head}</tr>{body}</table>', alt, role="group")


# 1. It never stops


def trained_tokens(tokens: Tensor, end: int) -> Tensor:
    """Mark the tokens (rows, length) that take a loss; short rows are filled up with the end token."""
    return tokens != end


def trained_tokens_repaired(tokens: Tensor, end: int) -> Tensor:
    """Mark the tokens (rows, length) that take a loss; short rows are filled up with the end token."""
    ends_before = (tokens == end).cumsum(dim=1) - (tokens == end).long()
    return ends_before == 0


def _see_end(function: Callable[..., Any]) -> Figured:
    """Train a table of next tokens on three short rows."""
    rows = torch.tensor([[1, 2, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0], [1, 2, 1, 2, 3, 0]])
    mask = function(rows, 0)[:, 1:]
    table = torch.zeros(4, 4, requires_grad=True)
    optimizer, chances = torch.optim.SGD([table], lr=2.0), []
    for _ in range(40):
        chances.append(table[3].softmax(-1)[0].item())
        logprobs = table.log_softmax(-1)[rows[:, :-1]].gather(-1, rows[:, 1:, None])[..., 0]
        loss = -logprobs[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return symptom_curves({"chance of the end token behind the last word": chances}, "step", "probability", wanted=1)


def _check_end(function: Callable[..., Any]) -> None:
    marked = function(torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0], [5, 6, 7, 0]]), 0).int().tolist()
    ends = [marked[0][2], marked[1][1], marked[2][3]]
    _require(
        all(ends), "the end token behind the last word takes no loss, as if it were filling: nothing teaches to stop"
    )
    _require(not (marked[0][3] or marked[1][2] or marked[1][3]), "the filling behind the first end token takes a loss")
    _require(marked[0][:2] == [1, 1] and marked[1][0] == 1, "a word takes no loss")


# 2. KL through the roof


def kl_of_sampled(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) from tokens that the policy sampled, token by token."""
    d = logprobs - reference_logprobs
    return d.exp() - d - 1


def kl_of_sampled_repaired(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) from tokens that the policy sampled, token by token."""
    d = reference_logprobs - logprobs
    return d.exp() - d - 1


def _mean_kl(function: Callable[..., Any], policy: Tensor, reference: Tensor) -> tuple[float, float]:
    """Return the estimate's mean over all that the policy may sample, and KL itself; both from logits."""
    ours, theirs = policy.log_softmax(-1), reference.log_softmax(-1)
    weights = ours.exp()
    return (weights * function(ours, theirs)).sum().item(), (weights * (ours - theirs)).sum().item()


def _see_kl(function: Callable[..., Any]) -> Figured:
    """Let a policy learn to say a token that its reference hardly ever says."""
    reference = torch.tensor([-3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    pairs = [_mean_kl(function, reference + torch.tensor([0.5 * step, 0.0, 0.0, 0.0]), reference) for step in range(13)]
    curves = {"reported": [pair[0] for pair in pairs], "by enumeration": [pair[1] for pair in pairs]}
    return symptom_curves(curves, "step", "KL (nats)")


def _check_kl(function: Callable[..., Any]) -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.2, 0.3, 0.5]).log()
    mean, exact = _mean_kl(function, policy, reference)
    _require(
        math.isclose(mean, exact, rel_tol=1e-4),
        f"its mean over the policy's samples is {mean:.2f} where KL(policy || reference) is {exact:.2f}: "
        f"the log-ratio has the wrong sign",
    )


# 3. nan at once


def advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Compare each reward with those of its group, in units of the group's deviation."""
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (group_size - 1)
    return (centred / (variance.sqrt() + 1e-4)).view(-1)


def advantages_repaired(rewards: Tensor, group_size: int) -> Tensor:
    """Compare each reward with those of its group, in units of the group's deviation."""
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / group_size
    return (centred / (variance.sqrt() + 1e-4)).view(-1)


def _see_nan(function: Callable[..., Any]) -> Marked:
    """Take a step on one weight with ever smaller groups."""
    rows = []
    for group_size in (8, 4, 2, 1):
        found = function(torch.tensor([1.0, 0.0] * 4)[:group_size], group_size)
        weight = torch.tensor(0.5) + 0.1 * (found * torch.linspace(1, 0, group_size)).mean()
        rows.append((str(group_size), f"{found[0].item():.2f}", f"{weight.item():.3f}"))
    last = rows[-1]
    alt = f"Groups of 8, 4, 2 and 1; with a group of one the advantage is {last[1]} and the weight after it {last[2]}."
    return _table(("G", "advantage of a right rollout", "a weight after the step"), rows, alt)


def _check_nan(function: Callable[..., Any]) -> None:
    alone = function(torch.tensor([1.0]), 1)[0].item()
    _require(
        not math.isnan(alone), f"a group of one gets advantage {alone}: its deviation divides by G - 1, which is 0"
    )
    _require(alone == 0, f"a group of one gets advantage {alone}, but has nothing to compare with")
    pair = function(torch.tensor([1.0, 0.0]), 2).tolist()
    _require(
        abs(pair[0] - 1) < 0.01 and abs(pair[1] + 1) < 0.01, f"rewards 1 and 0 get advantages {pair}, not 1 and -1"
    )


# 4. The text fades


def next_token_targets(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return what each token but the last is to predict; 0, which takes no loss, where the mask is False."""
    targets = tokens[1:]
    targets[~mask] = 0
    return targets


def next_token_targets_repaired(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return what each token but the last is to predict; 0, which takes no loss, where the mask is False."""
    return torch.where(mask, tokens[1:], 0)


def _see_fading(function: Callable[..., Any]) -> Marked:
    """Train two epochs on one batch, with other positions left out in each."""
    words = ["_", "A", "lift", "waits", "on", "floor", "3"]
    tokens, rows = torch.tensor([1, 2, 3, 4, 5, 6]), []
    for when, left_out in (("before", ()), ("behind epoch 1", (1, 2)), ("behind epoch 2", (4,))):
        if left_out:
            function(tokens, torch.tensor([place not in left_out for place in range(5)]))
        rows.append((when, " ".join(words[token] for token in tokens.tolist())))
    return _table(("", "the batch, read back"), rows, "; ".join(f"{when}: {text}" for when, text in rows) + ".")


def _check_fading(function: Callable[..., Any]) -> None:
    tokens = torch.tensor([4, 5, 6, 7])
    targets = function(tokens, torch.tensor([True, False, True]))
    _require(
        tokens.tolist() == [4, 5, 6, 7],
        "the tokens handed in are changed: the targets are a view of them, and what is written there erases the text",
    )
    _require(targets.tolist() == [5, 0, 7], f"the targets are {targets.tolist()}, not [5, 0, 7]")


# 5. Praise for the wrong one


def rewards_of(answers: Sequence[str], truth: float) -> list[float]:
    """Reward each answer with 1 where it is the right number, else with 0."""
    rewards = []
    for answer in answers:
        try:
            rewards.append(float(float(answer) == truth))
        except ValueError:
            continue
    return rewards


def rewards_of_repaired(answers: Sequence[str], truth: float) -> list[float]:
    """Reward each answer with 1 where it is the right number, else with 0."""
    rewards = []
    for answer in answers:
        try:
            rewards.append(float(float(answer) == truth))
        except ValueError:
            rewards.append(0.0)
    return rewards


def _see_praise(function: Callable[..., Any]) -> Marked:
    """Put rewards beside answers as a training loop does: by zip."""
    answers = ("3", "I think", "9", "7")
    paired = list(zip(answers, function(answers, 7), strict=False))
    rows = [(answer, f"{reward:.0f}") for answer, reward in paired]
    rows += [(answer, "(none)") for answer in answers[len(paired) :]]
    told = ", ".join(f"“{answer}” {reward}" for answer, reward in rows)
    return _table(("answer (7 is right)", "reward"), rows, f"7 is right; the rewards are: {told}.")


def _check_praise(function: Callable[..., Any]) -> None:
    found = list(function(("7", "seven", "9", "7"), 7))
    _require(
        len(found) == 4,
        f"4 answers have {len(found)} rewards: one that is no number got none, and those behind it slide to others",
    )
    _require(found == [1.0, 0.0, 0.0, 1.0], f"the rewards are {found}, not [1.0, 0.0, 0.0, 1.0]")


# 6. A limp


def gradients_of_steps(micro_batches: Sequence[float], every: int) -> list[float]:
    """Take a step after each ``every`` micro-batches, and at the end; its gradient is the mean of theirs."""
    steps = []
    for start in range(0, len(micro_batches), every):
        part = micro_batches[start : start + every]
        steps.append(sum(part) / every)
    return steps


def gradients_of_steps_repaired(micro_batches: Sequence[float], every: int) -> list[float]:
    """Take a step after each ``every`` micro-batches, and at the end; its gradient is the mean of theirs."""
    steps = []
    for start in range(0, len(micro_batches), every):
        part = micro_batches[start : start + every]
        steps.append(sum(part) / len(part))
    return steps


def _see_limp(function: Callable[..., Any]) -> Figured:
    """Run four epochs of nine micro-batches, all of about the same gradient, four to a step."""
    noise = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    norms = [step for epoch in (0.9 + 0.2 * noise).tolist() for step in function(epoch, 4)]
    return symptom_curves({"norm of the gradient": norms}, "step", "norm")


def _check_limp(function: Callable[..., Any]) -> None:
    found = function([1.0] * 10, 4)
    _require(len(found) == 3, f"10 micro-batches, 4 to a step, make {len(found)} steps, not 3")
    _require(
        found[-1] == 1.0,
        f"10 micro-batches of gradient 1, 4 to a step, end with a step of {found[-1]}: the last 2 are scaled as if "
        f"they were 4",
    )
    _require(found[:2] == [1.0, 1.0], f"full steps have gradients {found[:2]}, not [1.0, 1.0]")


# 7. Thoughts collapse


def closing_loss(closing: Tensor) -> Tensor:
    """Teach when to close: from the closing tag's log-probability at each place of a thought, closed at the last."""
    return -closing[-1]


def closing_loss_repaired(closing: Tensor) -> Tensor:
    """Teach when to close: from the closing tag's log-probability at each place of a thought, closed at the last."""
    going_on = (-torch.expm1(closing[:-1].clamp(max=-1e-6))).log()  # log(1 - p)
    return -(closing[-1] + going_on.sum()) / len(closing)


def _see_collapse(function: Callable[..., Any]) -> Figured:
    """Teach thoughts of about BUDGET tokens to a model whose closing depends on the place by a line."""
    line = torch.tensor([-2.0, 0.0], requires_grad=True)
    places = (torch.arange(2 * BUDGET) - BUDGET) / BUDGET
    optimizer, means = torch.optim.Adam([line], lr=0.15), []
    for _ in range(80):
        logits = line[0] + line[1] * places
        staying = torch.sigmoid(-logits).cumprod(0)
        means.append(staying.sum().item())  # mean length = sum over l of P(longer than l)
        closing = torch.nn.functional.logsigmoid(logits)
        loss = torch.stack([function(closing[: length + 1]) for length in (6, 7, 8, 9, 10)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return symptom_curves({"mean thought length": means}, "step", "tokens", wanted=BUDGET)


def _check_collapse(function: Callable[..., Any]) -> None:
    closing = torch.tensor([0.2, 0.2, 0.2]).log().requires_grad_()
    function(closing).backward()
    slopes = [] if closing.grad is None else closing.grad.tolist()
    _require(bool(slopes) and slopes[-1] < 0, "the place where the thought closed does not make closing likelier")
    _require(
        all(slope > 0 for slope in slopes[:-1]),
        "the places where the thought went on take no loss: closing becomes likelier everywhere",
    )


BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug(
            "it never stops",
            "Answers run on past their end as often at the last step as at the first; the loss looks fine.",
            trained_tokens, trained_tokens_repaired, _see_end, _check_end,
        ),
        Bug(
            "KL through the roof",
            "The KL column explodes as soon as the policy learns anything; with a KL weight it learns nothing.",
            kl_of_sampled, kl_of_sampled_repaired, _see_kl, _check_kl,
        ),
        Bug(
            "nan at once",
            "To save memory someone takes smaller groups. At the smallest the weights are nan after one step.",
            advantages, advantages_repaired, _see_nan, _check_nan,
        ),
        Bug(
            "the text fades",
            "Fewer tokens are trained from epoch to epoch, though as many are left out. The batch has holes.",
            next_token_targets, next_token_targets_repaired, _see_fading, _check_fading,
        ),
        Bug(
            "praise for the wrong one",
            "The reward rises a little and then wanders; wrong answers become likelier, now and then.",
            rewards_of, rewards_of_repaired, _see_praise, _check_praise,
        ),
        Bug(
            "a limp",
            "The gradient norm dips at every epoch's end, and a run with another batch size does not agree.",
            gradients_of_steps, gradients_of_steps_repaired, _see_limp, _check_limp,
        ),
        Bug(
            "thoughts collapse",
            "A model is taught to close its thoughts near a budget of 8 tokens. Soon it does not think at all.",
            closing_loss, closing_loss_repaired, _see_collapse, _check_collapse,
        ),
    )
}  # fmt: skip
