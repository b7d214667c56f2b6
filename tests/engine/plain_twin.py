"""What the tree must equal, written without it: every rollout is read with its whole prefix by the whole model.

Nothing here uses ``engine.tree``, ``engine.plain``, ``engine.logits`` or ``method``; of ``engine.rollout`` only the
record of what was asked. Losses are written out by hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking
from rmt_mini.records import Position, Rollout


def next_logits(model: Any, tokens: Sequence[int]) -> Tensor:
    """Logits after every token, (L, V), fp32 or better."""
    ids = torch.tensor([list(tokens)], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def read_and_decided(form: AnswerFormat, trunk: Sequence[int], rollout: Rollout) -> tuple[list[int], list[int]]:
    """Everything from the document's first token to the answer's last, and the places the model chose."""
    tokens, places = list(trunk[: rollout.position.index]), []

    def add(new: Sequence[int], chosen: int) -> None:
        places.extend(range(len(tokens), len(tokens) + chosen))
        tokens.extend(new)

    add(form.opening(rollout.budget), 0)
    add(rollout.thought, len(rollout.thought))
    add(form.close, 1 if rollout.closed else 0)  # closing is one decision, and only where the model made it
    add(form.cue(trunk, rollout.position.index), 0)
    add(rollout.answer, len(rollout.answer))
    return tokens, places


def twin_logprobs(model: Any, form: AnswerFormat, trunk: Sequence[int], rollout: Rollout, temperature: float) -> Tensor:
    """Log-probabilities of what the model chose, (decisions,)."""
    tokens, places = read_and_decided(form, trunk, rollout)
    logprobs = torch.log_softmax(next_logits(model, tokens) / temperature, dim=-1)
    return torch.stack([logprobs[place - 1, tokens[place]] for place in places])


@dataclass
class Work:
    """One step's worth: documents, rollouts with hand-made advantages, and what the losses need.

    The policy has moved since sampling, by ``drift`` at each decision, so that ratios differ from 1 and the loss's
    value says something; ``twin_step`` puts the log-probabilities at sampling time in ``old``.
    """

    trunks: list[list[int]]
    rollouts: list[Rollout]
    advantages: list[float]
    drift: list[list[float]]
    first: int = 1  # no next-token loss before it
    temperature: float = 0.8
    ntp_weight: float = 0.3
    old: list[Tensor] = field(default_factory=list)


@dataclass
class Outcome:
    """Losses, log-probabilities of each rollout's decisions, and the gradient of every parameter."""

    rl: float
    ntp: float
    logprobs: list[Tensor]
    gradients: dict[str, Tensor]


def gradients_of(model: Any) -> dict[str, Tensor]:
    """Take the gradients away from the model."""
    taken = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return taken


def twin_step(model: Any, form: AnswerFormat, work: Work, count: int | None = None) -> Outcome:
    """One backward pass through both losses, the naive way; L_RL is a mean over ``count``, or over tokens."""
    model.zero_grad(set_to_none=True)
    logprobs: list[Tensor] = []
    rl = torch.zeros((), dtype=model.dtype)
    work.old = []
    for rollout, advantage, drift in zip(work.rollouts, work.advantages, work.drift, strict=True):
        now = twin_logprobs(model, form, work.trunks[rollout.position.trunk], rollout, work.temperature)
        work.old.append(now.detach() + torch.tensor(drift, dtype=now.dtype, device=now.device))
        rl = rl - (torch.exp(now - work.old[-1]) * advantage).sum()
        logprobs.append(now.detach())
    rl = rl / (count or max(1, sum(map(len, logprobs))))
    losses = []
    for n, trunk in enumerate(work.trunks):
        chosen = {rollout.position.index for rollout in work.rollouts if rollout.position.trunk == n}
        logits = torch.log_softmax(next_logits(model, trunk), dim=-1)
        for place in range(work.first, len(trunk)):
            if place not in chosen:
                losses.append(-logits[place - 1, trunk[place]])
    ntp = torch.stack(losses).mean()
    (rl + work.ntp_weight * ntp).backward()
    return Outcome(rl.item(), ntp.item(), logprobs, gradients_of(model))


@torch.no_grad()
def naive_roll_out(
    model: Any,
    form: AnswerFormat,
    trunks: Sequence[Sequence[int]],
    positions: Sequence[Position],
    asking: Asking,
) -> list[Rollout]:
    """One greedy rollout a position, everything read again for every token."""
    rollouts = []
    for position, budget, cap in zip(positions, asking.budgets, asking.caps, strict=True):
        trunk = trunks[position.trunk]
        before = [*trunk[: position.index], *form.opening(budget)]
        thought: list[int] = []
        closed = False
        while len(thought) < cap and not closed:
            logits = next_logits(model, [*before, *thought])[-1]
            if asking.forced:
                logits[form.close[0]] = -torch.inf
            token = int(logits.argmax())
            if token == form.close[0]:
                closed = True
            else:
                thought.append(token)
        before = [*before, *thought, *form.close, *form.cue(trunk, position.index)]
        answer: list[int] = []
        while not answer or not form.finished(answer):
            answer.append(int(next_logits(model, [*before, *answer])[-1].argmax()))
        rollouts.append(Rollout(position, budget, tuple(thought), closed, tuple(answer), ()))
    return rollouts
