"""Sample thoughts and answers off shared trunks, and take their log-probabilities again for training.

All rollouts of a step decode together: they think, are closed, and answer. A row that has closed its thought leaves
the batch; closing tag, cue and answer follow at the end. A thought that reaches its cap is closed by the environment:
that closing takes no loss, while one that the model chose does. Otherwise a budget could not be learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rmt_mini.engine.logits import sample, target_logprobs
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.engine.static import fits, think_in_steps
from rmt_mini.engine.tree import DocumentTree, Trunks
from rmt_mini.records import Position, Rollout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asking:
    """How thoughts are asked for at every position of a call."""

    budgets: Sequence[int | None]  # B_t for each position, tokens, as the opening states it; None states none
    caps: Sequence[int]  # the longest thought at each position, tokens
    temperature: float = 1.0  # of sampling; 0 takes the likeliest token
    answer_temperature: float | None = None  # of the answer alone, where it differs
    forced: bool = False  # no thought may close before its cap (the cold start sets lengths this way)


@dataclass(slots=True)
class Branch:
    """A rollout as tokens, in their order: sampling lets one grow, training lays one out whole."""

    position: Position
    budget: int | None
    opening: Sequence[int]
    closing: Sequence[int]  # the closing tag and the cue; the model samples its first token where ``closed``
    thought: list[int] = field(default_factory=list)
    closed: bool = False
    answer: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    truth: float | None = None

    @property
    def tokens(self) -> list[int]:
        """All that the model reads: without the answer's last token, which predicts nothing."""
        return [*self.opening, *self.thought, *self.closing, *self.answer[:-1]]

    @property
    def thinking(self) -> range:
        """Places whose next token is a thought token, or the closing decision after the last one."""
        start = len(self.opening) - 1
        return range(start, start + len(self.thought) + 1)

    @property
    def answering(self) -> range:
        """Places whose next token is an answer token."""
        start = len(self.opening) + len(self.thought) + len(self.closing) - 1
        return range(start, start + len(self.answer))

    @property
    def decisions(self) -> tuple[list[int], list[int]]:
        """Places and targets of everything the model sampled: thought, its own closing, answer."""
        places = [*self.thinking[: len(self.thought) + self.closed], *self.answering]
        return places, [*self.thought, *self.closing[: int(self.closed)], *self.answer]

    def rollout(self) -> Rollout:
        """Return it as a record."""
        thought, answer, logprobs = tuple(self.thought), tuple(self.answer), tuple(self.logprobs)
        return Rollout(self.position, self.budget, thought, self.closed, answer, logprobs, self.truth)


def begin(form: AnswerFormat, trunk: Sequence[int], position: Position, budget: int | None) -> Branch:
    """Return a branch of a text without thought and answer."""
    cue = form.cue(trunk, position.index)
    return Branch(position, budget, form.opening(budget), [*form.close, *cue])


def lay_out(form: AnswerFormat, trunk: Sequence[int], rollout: Rollout) -> Branch:
    """Return the branch that a rollout grew as."""
    branch = begin(form, trunk, rollout.position, rollout.budget)
    branch.thought, branch.closed, branch.answer = list(rollout.thought), rollout.closed, list(rollout.answer)
    return branch


@dataclass
class _Batch:
    """Branches that grow side by side: their tokens, the longest thought of each, and their keys and values."""

    policy: Policy
    form: AnswerFormat
    asking: Asking
    rows: list[Branch]
    caps: list[int]
    grown: Any

    def append(self, active: Sequence[int], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to some rows; returns the logits after each (rows, V)."""
        padded = pad_sequence([torch.tensor(new) for new in tokens], batch_first=True).to(self.policy.device)
        counts = torch.tensor([len(new) for new in tokens])
        logits: Tensor = self.policy.head(self.policy.tree.grow(self.grown, torch.tensor(active), padded, counts))
        return logits

    def fork(self, copies: int) -> "_Batch":
        """Return ``copies`` rows in place of each, side by side, which share what was read so far."""
        rows = [Branch(one.position, one.budget, one.opening, one.closing) for one in self.rows for _ in range(copies)]
        caps = [cap for cap in self.caps for _ in range(copies)]
        which = torch.arange(len(self.rows)).repeat_interleave(copies)
        return _Batch(self.policy, self.form, self.asking, rows, caps, self.grown.take(which))


@torch.no_grad()
def roll_out(
    policy: Policy,
    form: AnswerFormat,
    trunks: Trunks,
    positions: Sequence[Position],
    group_size: int,
    asking: Asking,
    generator: torch.Generator,
    in_steps: bool | None = None,
) -> list[Rollout]:
    """Sample ``group_size`` thoughts and answers at each position, sorted by trunk; a group is side by side.

    The generator is on the CPU, so that a seed means the same on every device. Everywhere else thoughts are sampled
    ``in_steps`` of fixed shapes (``engine/static.py``), where memory allows it.
    """
    asked = zip(positions, asking.budgets, strict=True)
    rows = [begin(form, trunks.documents[position.trunk], position, budget) for position, budget in asked]
    decisions = max(asking.caps) + form.answer_limit
    capacity = max(len(row.opening) for row in rows) + max(len(row.closing) for row in rows) + decisions
    batch = _Batch(policy, form, asking, rows, list(asking.caps), policy.tree.branches(trunks, positions, capacity))
    with policy.tree.sampling():
        logits = batch.append(range(len(rows)), [row.opening for row in rows])
        batch = batch.fork(group_size)  # a group shares its opening
        logits = logits.repeat_interleave(group_size, dim=0)
        # a number for each row and decision, so that nothing a row draws depends on which others are still growing
        uniform = torch.rand(len(batch.rows), decisions, generator=generator).to(policy.device)
        if in_steps is None:
            in_steps = (
                policy.device.type != "cpu" and isinstance(policy.tree, DocumentTree) and fits(batch.grown, decisions)
            )
        if in_steps:
            sampling = (form.close[0], asking.temperature, asking.forced)
            thoughts = think_in_steps(policy, batch.grown, batch.caps, logits, uniform, sampling)
            for row, (thought, logprobs, closed) in zip(batch.rows, thoughts.found(), strict=True):
                row.thought, row.logprobs, row.closed = thought, logprobs, closed
        else:
            going = [row for row, cap in enumerate(batch.caps) if cap > 0]
            _think(batch, batch.grown, range(len(batch.rows)), going, logits[going], uniform)
        blocks = [[*([] if row.closed else row.thought[-1:]), *row.closing] for row in batch.rows]
        logits = batch.append(range(len(blocks)), blocks)
        _compare(batch, logits, trunks)
        _answer(batch, logits, uniform)
    return [row.rollout() for row in batch.rows]


def _think(
    batch: _Batch, grown: Any, rows: Sequence[int], going: Sequence[int], logits: Tensor, uniform: Tensor
) -> None:
    """Sample thoughts until each has closed or reached its cap; the last token of one at its cap stays unread.

    ``grown`` holds keys and values of ``rows`` of the batch; those at the places ``going`` think, after ``logits``.
    """
    policy, asking, close = batch.policy, batch.asking, batch.form.close[0]
    while going:
        numbers = [rows[place] for place in going]
        if asking.forced:
            logits[:, close] = -torch.inf
        depth = len(batch.rows[numbers[0]].thought)  # of every row that still thinks
        drawn = sample(logits, asking.temperature, uniform[numbers, depth])
        on = []
        for place, number, token, logprob in zip(going, numbers, *(part.tolist() for part in drawn), strict=True):
            row = batch.rows[number]
            row.logprobs.append(logprob)
            row.closed = token == close
            row.thought += [] if row.closed else [token]
            if not row.closed and len(row.thought) < batch.caps[number]:
                on.append(place)
        if not on:
            return
        tokens = torch.tensor([batch.rows[rows[place]].thought[-1:] for place in on], device=policy.device)
        which = torch.tensor(on)
        if 2 * len(on) > len(rows):
            logits, going = policy.head(policy.tree.grow(grown, which, tokens)), on
        else:  # few are left: from here they grow without the keys and values of the rest
            taken, all_ = grown.take(which), range(len(on))
            logits = policy.head(policy.tree.grow(taken, torch.arange(len(on)), tokens))
            _think(batch, taken, [rows[place] for place in on], all_, logits, uniform)
            grown.put(which, taken)
            return


def _compare(batch: _Batch, logits: Tensor, trunks: Trunks) -> None:
    """Note how likely each thought made the text's own token, where that is the answer; a question has none."""
    places = [row.position for row in batch.rows]
    own = [trunks.documents[at.trunk][at.index : at.index + 1] for at in places]
    if batch.form.name == "continuation" and all(own):
        truths = torch.tensor(own, device=logits.device)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logprobs = wide.gather(-1, truths)[:, 0] - wide.logsumexp(-1)
        for row, logprob in zip(batch.rows, logprobs.tolist(), strict=True):
            row.truth = logprob


def _answer(batch: _Batch, logits: Tensor, uniform: Tensor) -> None:
    """Sample answers until each is complete."""
    asking = batch.asking
    temperature = asking.temperature if asking.answer_temperature is None else asking.answer_temperature
    active = list(range(len(batch.rows)))
    while active:
        places = torch.tensor([len(batch.rows[number].logprobs) for number in active])
        drawn = sample(logits, temperature, uniform[active, places])
        for number, token, logprob in zip(active, *(part.tolist() for part in drawn), strict=True):
            batch.rows[number].answer.append(token)
            batch.rows[number].logprobs.append(logprob)
        active = [number for number in active if not batch.form.finished(batch.rows[number].answer)]
        if active:
            logits = batch.append(active, [batch.rows[number].answer[-1:] for number in active])


def chunks(items: Sequence[T], rollout_of: Callable[[T], Rollout], form: AnswerFormat, tokens: int) -> list[list[T]]:
    """Cut rollouts into pieces of about ``tokens`` branch tokens, of similar length; each is sorted by trunk."""
    frame = len(form.opening(99)) + len(form.close) + TAIL_TOKENS
    pieces: list[list[T]] = []
    room = 0
    for item in sorted(items, key=lambda one: rollout_of(one).length):
        size = frame + rollout_of(item).length + len(rollout_of(item).answer)
        if not pieces or size > room:
            pieces.append([])
            room = tokens
        pieces[-1].append(item)
        room -= size
    return [sorted(piece, key=lambda one: rollout_of(one).position.trunk) for piece in pieces]


def read_branches(policy: Policy, trunks: Trunks, branches: Sequence[Branch]) -> tuple[Tensor, list[int]]:
    """Read whole branches, sorted by trunk; returns their hidden states, packed, and where each begins."""
    tokens = [branch.tokens for branch in branches]
    hidden = policy.tree.whole(trunks, [branch.position for branch in branches], tokens)
    return hidden, list(accumulate(map(len, tokens[:-1]), initial=0))


def rollout_logprobs(
    policy: Policy, form: AnswerFormat, trunks: Trunks, rollouts: Sequence[Rollout], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (R, L), padded with 0, of what R rollouts, sorted by trunk, sampled; and their mask."""
    device = policy.device
    branches = [lay_out(form, trunks.documents[one.position.trunk], one) for one in rollouts]
    hidden, starts = read_branches(policy, trunks, branches)
    decided = [branch.decisions for branch in branches]
    places = [start + place for start, (own, _) in zip(starts, decided, strict=True) for place in own]
    targets = torch.tensor([target for _, own in decided for target in own], device=device)
    packed = target_logprobs(policy.head, hidden[torch.tensor(places, device=device)], targets, temperature)
    counts = torch.tensor([len(own) for own, _ in decided])
    mask = (torch.arange(int(counts.max())) < counts[:, None]).to(device)
    return packed.new_zeros(mask.shape).masked_scatter(mask, packed), mask
