"""Sample thoughts and answers off shared trunks, and take their log-probabilities again for training.

All rollouts of a step decode together. A row that has closed its thought leaves the batch; its closing tag, cue and
answer follow in one block at the end. A thought that reaches its cap is closed by the environment: that closing is not
the model's choice and takes no loss, while a closing the model chose does. Otherwise a budget could not be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmt_mini.engine.logits import sample, target_logprobs
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.engine.tree import Trunks
from rmt_mini.records import Position, Rollout


@dataclass(frozen=True, slots=True)
class Asking:
    """How thoughts are asked for at every position of a call.

    Attributes:
        budgets: B_t for each position, tokens, as the opening states it; None states none.
        caps: the longest thought at each position, tokens.
        temperature: of sampling; 0 takes the likeliest token.
        answer_temperature: of the answer alone, where it differs (evaluation takes the likeliest answer).
        forced: True lets no thought close before its cap (the cold start sets lengths this way).
    """

    budgets: Sequence[int | None]
    caps: Sequence[int]
    temperature: float = 1.0
    answer_temperature: float | None = None
    forced: bool = False


class _Growth:
    """Rows of different lengths on branches that grow by rectangles."""

    def __init__(self, policy: Policy, branches: Any) -> None:
        self.policy, self.branches = policy, branches

    def append(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append a token list to each row; returns the logits after each (rows, V)."""
        device = self.policy.device
        hidden: Tensor | None = None
        by_length: dict[int, list[int]] = {}
        for place, new in enumerate(tokens):
            by_length.setdefault(len(new), []).append(place)
        for places in by_length.values():
            part = self.policy.tree.grow(
                self.branches,
                torch.tensor([rows[place] for place in places]),
                torch.tensor([list(tokens[place]) for place in places], device=device),
            )
            if len(by_length) == 1:
                hidden = part
            else:
                hidden = part.new_empty(len(tokens), part.shape[-1]) if hidden is None else hidden
                hidden[torch.tensor(places, device=device)] = part
        logits: Tensor = self.policy.head(hidden)
        return logits

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Append one token to each row, as it stands on the device; returns the logits after it (rows, V)."""
        hidden = self.policy.tree.grow(self.branches, torch.tensor(rows), tokens[:, None])
        logits: Tensor = self.policy.head(hidden)
        return logits


@torch.no_grad()
def roll_out(
    policy: Policy,
    form: AnswerFormat,
    trunks: Trunks,
    positions: Sequence[Position],
    group_size: int,
    asking: Asking,
    generator: torch.Generator,
    stride: int | None = None,
) -> list[Rollout]:
    """Sample ``group_size`` thoughts and answers at each position.

    Args:
        policy: the model.
        form: the answer format.
        trunks: as ``policy.tree.read`` returned them.
        positions: sorted by trunk.
        group_size: G.
        asking: budgets, caps, temperature.
        generator: on the CPU, so that a seed means the same on every device.
        stride: thought tokens that are sampled before the CPU looks at them, which waits for the device; rows that
            closed meanwhile go on in vain, and the outcome is the same. None takes 1 on the CPU and 8 elsewhere.

    Returns:
        len(positions) * group_size rollouts, a position's group side by side.

    Raises:
        ValueError: if the positions are not sorted by trunk.
    """
    device, temperature, close = policy.device, asking.temperature, form.close[0]
    texts = [ids.tolist() for ids in trunks.ids]
    openings = [form.opening(budget) for budget in asking.budgets]
    caps = [cap for cap in asking.caps for _ in range(group_size)]
    longest_cue = max(len(form.cue(texts[p.trunk], p.index)) for p in positions)
    capacity = max(map(len, openings)) + max(caps) + len(form.close) + longest_cue + form.answer_limit
    branches = policy.tree.branches(
        trunks,
        torch.tensor([p.trunk for p in positions]),
        torch.tensor([p.index for p in positions]),
        capacity,
    )
    logits = _Growth(policy, branches).append(range(len(positions)), openings)
    growth = _Growth(policy, branches.fork(group_size))  # a group shares its opening
    logits = logits.repeat_interleave(group_size, dim=0)

    count = len(positions) * group_size
    thoughts: list[list[int]] = [[] for _ in range(count)]
    answers: list[list[int]] = [[] for _ in range(count)]
    logprobs: list[list[float]] = [[] for _ in range(count)]
    closed = [False] * count
    # a number for each row and decision, so that nothing a row draws depends on which others are still growing
    uniform = torch.rand(count, max(caps) + form.answer_limit, generator=generator).to(device)
    stride = stride or (1 if device.type == "cpu" else 8)
    active = [row for row in range(count) if caps[row] > 0]
    if len(active) < count:
        logits = logits[torch.tensor(active, dtype=torch.long, device=device)]
    depth = 0  # thought tokens of every active row
    while active:
        rows = torch.tensor(active, device=device)
        drawn: list[tuple[Tensor, Tensor]] = []
        for place in range(depth, min(depth + stride, *(caps[row] for row in active))):
            if drawn:
                logits = growth.step(active, drawn[-1][0])
            if asking.forced:
                logits[:, close] = -torch.inf
            drawn.append(sample(logits, temperature, uniform[rows, place]))
        tokens, chosen = (torch.stack(part, dim=1).tolist() for part in zip(*drawn, strict=True))
        going, vain = [], []
        for row, new, logprob in zip(active, tokens, chosen, strict=True):
            closed[row] = close in new
            kept = new.index(close) if closed[row] else len(new)
            thoughts[row] += new[:kept]
            logprobs[row] += logprob[: kept + closed[row]]
            vain.append(max(0, len(new) - 1 - kept))  # read behind the closing; the last token is still unread
            if not closed[row] and len(thoughts[row]) < caps[row]:
                going.append(row)
        growth.branches.forget(torch.tensor(active), torch.tensor(vain))
        active, depth = going, depth + len(drawn)
        if active:
            logits = growth.append(active, [thoughts[row][-1:] for row in active])

    # a thought that ran into its cap has its last token still unread
    blocks = []
    for row in range(count):
        position = positions[row // group_size]
        unread = [] if closed[row] else thoughts[row][-1:]
        blocks.append([*unread, *form.close, *form.cue(texts[position.trunk], position.index)])
    active = list(range(count))
    logits = growth.append(active, blocks)
    if asking.answer_temperature is not None:
        temperature = asking.answer_temperature
    while True:
        places = torch.tensor([len(logprobs[row]) for row in active])
        drawn_now = sample(logits, temperature, uniform[active, places])
        for row, token, logprob in zip(active, *(part.tolist() for part in drawn_now), strict=True):
            answers[row].append(token)
            logprobs[row].append(logprob)
        active = [row for row in active if not form.finished(answers[row])]
        if not active:
            break
        logits = growth.append(active, [answers[row][-1:] for row in active])

    return [
        Rollout(
            positions[row // group_size],
            asking.budgets[row // group_size] or 0,
            tuple(thoughts[row]),
            closed[row],
            tuple(answers[row]),
            tuple(logprobs[row]),
        )
        for row in range(count)
    ]


@dataclass(frozen=True, slots=True)
class Branch:
    """A rollout laid out as tokens, with the places at which something was decided.

    Attributes:
        tokens: everything the model reads, without the answer's last token, which predicts nothing.
        thinking: places whose next token is a thought token, or the closing decision after the last one.
        answering: places whose next token is an answer token.
    """

    tokens: list[int]
    thinking: list[int]
    answering: list[int]


def lay_out(form: AnswerFormat, trunk: Sequence[int], rollout: Rollout) -> Branch:
    """Turn a rollout back into the branch it grew as."""
    opening = form.opening(rollout.budget or None)
    before = [*opening, *rollout.thought, *form.close, *form.cue(trunk, rollout.position.index)]
    start = len(opening) - 1
    return Branch(
        [*before, *rollout.answer[:-1]],
        list(range(start, start + rollout.length + 1)),
        list(range(len(before) - 1, len(before) - 1 + len(rollout.answer))),
    )


def chunks(rollouts: Sequence[Rollout], form: AnswerFormat, tokens: int) -> list[list[Rollout]]:
    """Cut rollouts into pieces of about ``tokens`` branch tokens, so that memory does not grow with G or K.

    Rollouts of like length stand together, since a piece's attention is as wide as its longest; inside a piece they
    are sorted by trunk, as the tree wants them.
    """
    frame = len(form.opening(99)) + len(form.close) + TAIL_TOKENS
    pieces: list[list[Rollout]] = []
    room = 0
    for rollout in sorted(rollouts, key=lambda one: one.length):
        size = frame + rollout.length + len(rollout.answer)
        if not pieces or size > room:
            pieces.append([])
            room = tokens
        pieces[-1].append(rollout)
        room -= size
    return [sorted(piece, key=lambda one: one.position.trunk) for piece in pieces]


def decisions(form: AnswerFormat, branch: Branch, rollout: Rollout) -> tuple[list[int], list[int]]:
    """Places and targets of everything the model sampled: thought, its own closing, answer."""
    places = [*branch.thinking[: rollout.length + rollout.closed], *branch.answering]
    targets = [*rollout.thought, *form.close[: int(rollout.closed)], *rollout.answer]
    return places, targets


def rollout_logprobs(
    policy: Policy, form: AnswerFormat, trunks: Trunks, rollouts: Sequence[Rollout], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of what each rollout sampled, under the policy as it is now; differentiable.

    Args:
        policy: the model.
        form: the answer format the rollouts were sampled with.
        trunks: read by the same policy.
        rollouts: R of them, sorted by trunk.
        temperature: of sampling.

    Returns:
        Log-probabilities (R, L) padded with 0, and the mask (R, L) of real ones.
    """
    texts = [ids.tolist() for ids in trunks.ids]
    tokens, places, targets, counts, start = [], [], [], [], 0
    for rollout in rollouts:
        branch = lay_out(form, texts[rollout.position.trunk], rollout)
        local, wanted = decisions(form, branch, rollout)
        tokens.append(torch.tensor(branch.tokens, device=policy.device))
        places += [start + place for place in local]
        targets += wanted
        counts.append(len(wanted))
        start += len(branch.tokens)
    hidden = whole_branches(policy, trunks, rollouts, tokens)
    device = policy.device
    packed = target_logprobs(
        policy.head, hidden[torch.tensor(places, device=device)], torch.tensor(targets, device=device), temperature
    )
    mask = torch.arange(max(counts), device=device) < torch.tensor(counts, device=device)[:, None]
    return packed.new_zeros(mask.shape).masked_scatter(mask, packed), mask


def whole_branches(policy: Policy, trunks: Trunks, rollouts: Sequence[Rollout], tokens: Sequence[Tensor]) -> Tensor:
    """Hidden states of the rollouts' branches, packed."""
    trunk = torch.tensor([r.position.trunk for r in rollouts])
    index = torch.tensor([r.position.index for r in rollouts])
    return policy.tree.whole(trunks, trunk, index, tokens)
