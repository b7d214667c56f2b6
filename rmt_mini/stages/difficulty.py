"""Other answers to "how hard is this token?" than entropy, for the setting ``difficulty``.

Entropy cannot tell a token that nothing determines from one that a short calculation would settle. These scores, higher
is harder, replace it in training; the tiers keep the sizes that entropy gives them in the step, and held-out positions
keep entropy's tiers, so that runs differ in what they train on alone.

    loss                -log p(true token): hard is what the policy does not expect
    learning-progress   the loss under the weights RMT began with, minus the loss now: "hard", which the curriculum
                        comes to in the end, is what is being learned; what is known and what is hopeless is "easy"
    pass-rate           the share of wrong answers after a thought
    random              no measure at all

The loss costs nothing, since the step has read its documents. Learning progress reads them once more, with weights that
are kept. The pass rate has no cheap form: a text is read again after an epoch, if at all, so that no earlier rollouts
tell of it, and a rate needs rollouts. It asks PROBES thoughts at CANDIDATES times as many positions as are wanted,
drawn uniformly, and the step's positions come from those: with G = 8 about three quarters more rollouts, which the
step's seconds and tokens count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.tree import Trunks
from rmt_mini.records import Position, Rollout

PROBES, CANDIDATES = 2, 3


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a step's positions, and what they cost.

    Attributes:
        kept: which of the positions may be drawn.
        score: (len(kept),), higher is harder.
        rollouts: sampled for it.
        trunk_reads: how often the documents were read for it.
    """

    kept: Sequence[int]
    score: Tensor
    rollouts: Sequence[Rollout] = ()
    trunk_reads: int = 0


@torch.no_grad()
def score_positions(
    kind: str,
    policy: Policy,
    start: Policy | None,
    form: AnswerFormat,
    trunks: Trunks,
    positions: Sequence[Position],
    wanted: int,
    ask: Callable[[Sequence[Position]], Asking],
    generator: torch.Generator,
) -> Scored:
    """Score positions of a step by one of the measures above.

    Args:
        kind: of config.difficulty, but not "entropy".
        policy: as it is now.
        start: as RMT began; for "learning-progress" only.
        form: the answer format.
        trunks: as the policy read them.
        positions: that may be asked for, sorted by trunk.
        wanted: how many will be drawn.
        ask: how thoughts are asked for at some positions.
        generator: on the CPU.

    Raises:
        ValueError: for another kind, or where the weights RMT began with are missing.
    """
    everywhere = range(len(positions))
    if kind == "random":
        return Scored(everywhere, torch.rand(len(positions), generator=generator))
    if kind == "loss":
        return Scored(everywhere, _losses(policy, trunks, positions))
    if kind == "learning-progress" and start is not None:
        then = _losses(start, start.tree.read(trunks.ids), positions)
        return Scored(everywhere, then - _losses(policy, trunks, positions), trunk_reads=1)
    if kind == "pass-rate":
        order = torch.randperm(len(positions), generator=generator)[: CANDIDATES * wanted]
        kept = sorted(order.tolist())
        asked = [positions[place] for place in kept]
        rollouts = roll_out(policy, form, trunks, asked, PROBES, ask(asked), generator)
        texts = [ids.tolist() for ids in trunks.ids]
        right = [form.judge(r.answer, texts[r.position.trunk], r.position.index) for r in rollouts]
        return Scored(kept, 1 - torch.tensor(right).view(-1, PROBES).mean(1), rollouts)
    raise ValueError(f"difficulty {kind!r} is unknown, or lacks the weights to compare with")


def _losses(policy: Policy, trunks: Trunks, positions: Sequence[Position]) -> Tensor:
    """-log p(true token) at each position, (len(positions),), on the CPU."""
    hidden = torch.stack([trunks.hidden[one.trunk][one.index - 1] for one in positions])
    targets = torch.stack([trunks.ids[one.trunk][one.index] for one in positions])
    return -target_logprobs(policy.head, hidden, targets).cpu()
