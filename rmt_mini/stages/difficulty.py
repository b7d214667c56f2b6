"""What a step chooses from: the positions of its texts, and how hard each is.

Entropy is the paper's measure. It cannot distinguish a token that nothing determines from one that a short calculation
would settle, so the setting ``difficulty`` offers others. Their scores, higher is harder, assign the tiers anew, in the
sizes that entropy gives them in the step; held-out positions keep entropy's tiers.

    loss                -log p(true token): hard is what the policy does not expect
    learning-progress   the loss under the weights RMT began with, minus the loss now: hard is what is being learned
    pass-rate           the share of wrong answers after PROBES thoughts, asked at CANDIDATES times as many positions as
                        are wanted: with G = 8 about three quarters more rollouts
    random              no measure at all
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import pieces, target_logprobs
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.text import QUANTILE_TEXTS, proxy_of
from rmt_mini.engine.tree import Trunks
from rmt_mini.method.entropy import assign_tiers, quantile_thresholds, tiers_by_score, token_entropy
from rmt_mini.records import Position, Rollout, Text

PROBES, CANDIDATES = 2, 3


@dataclass(frozen=True, slots=True)
class Pool:
    """Positions that a step may ask, sorted by trunk and index, and what was spent on finding out how hard they are."""

    positions: Sequence[Position]
    probes: Sequence[Rollout] = ()
    trunk_reads: int = 0


@torch.no_grad()
def trunk_entropy(policy: Policy, trunks: Trunks, top_k: int) -> list[Tensor]:
    """Entropy of the next-token distribution at every token of every trunk, nats; index 0 has none and holds 0."""
    entropies = []
    for hidden in trunks.hidden:
        parts = [token_entropy(policy.head(hidden[rows]), top_k or None) for rows in pieces(hidden)]
        entropies.append(torch.cat([parts[0].new_zeros(1), *parts])[:-1].cpu())
    return entropies


class Difficulty:
    """Sort the tokens of trunks into tiers: by the policy's own entropy as it is now, or a proxy model's."""

    def __init__(self, policy: Policy, config: RMTConfig, texts: Sequence[Text]) -> None:
        self.policy, self.top_k = policy, config.entropy_top_k
        self.proxy = proxy_of(policy, config)
        self.thresholds = config.tier_thresholds
        if config.tier_rule == "quantile":
            sample = texts[:QUANTILE_TEXTS]
            with torch.no_grad():
                entropies = [self.entropy(policy.tree.read([text.ids]))[0][list(text.places)] for text in sample]
            self.thresholds = quantile_thresholds(torch.cat(entropies), config.tier_thresholds)

    def entropy(self, trunks: Trunks) -> list[Tensor]:
        """Entropies of every token of every trunk, (T_n,) each, on the CPU."""
        if self.proxy is None:
            return trunk_entropy(self.policy, trunks, self.top_k)
        with torch.no_grad():
            return trunk_entropy(self.proxy, self.proxy.tree.read(trunks.documents), self.top_k)

    def tiers(self, entropies: Sequence[Tensor]) -> list[Tensor]:
        """Tiers of the same shape as the entropies."""
        return [assign_tiers(entropy, self.thresholds) for entropy in entropies]

    def pool(self, texts: Sequence[Text], trunks: Trunks) -> Pool:
        """Return all positions of some texts that may be asked for."""
        entropies, found = self.entropy(trunks), list[Position]()
        for n, text, entropy, tiers in zip(trunks.documents, texts, entropies, self.tiers(entropies), strict=True):
            measured = list(zip(tiers.tolist(), entropy.tolist(), strict=True))
            found += [Position(n, index, *measured[index]) for index in text.places]
        return Pool(found)


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a measure other than entropy may look at."""

    policy: Policy
    start: Policy | None  # the weights RMT began with
    form: AnswerFormat
    trunks: Trunks
    positions: Sequence[Position]
    wanted: int
    ask: Callable[[Sequence[Position]], Asking]
    generator: torch.Generator


@torch.no_grad()
def rescored(kind: str, scoring: Scoring) -> Pool:
    """Assign the tiers anew by another measure than entropy, one of MEASURES."""
    pool, score = MEASURES[kind](scoring)
    tiers, entropies = ([getattr(one, name) for one in pool.positions] for name in ("tier", "entropy"))
    found = tiers_by_score(score, torch.tensor(tiers), torch.tensor(entropies)).tolist()
    return replace(pool, positions=[replace(one, tier=own) for one, own in zip(pool.positions, found, strict=True)])


def _losses(policy: Policy, trunks: Trunks, positions: Sequence[Position]) -> Tensor:
    """-log p(true token) at each position, (len(positions),), on the CPU."""
    targets = [trunks.documents[one.trunk][one.index] for one in positions]
    return -target_logprobs(policy.head, trunks.before(positions), torch.tensor(targets, device=policy.device)).cpu()


def _learning_progress(scoring: Scoring) -> tuple[Pool, Tensor]:
    if scoring.start is None:
        raise ValueError("learning progress needs the weights that RMT began with")
    then = _losses(scoring.start, scoring.start.tree.read(scoring.trunks.documents), scoring.positions)
    return Pool(scoring.positions, trunk_reads=1), then - _losses(scoring.policy, scoring.trunks, scoring.positions)


def _pass_rate(scoring: Scoring) -> tuple[Pool, Tensor]:
    form, trunks = scoring.form, scoring.trunks
    order = torch.randperm(len(scoring.positions), generator=scoring.generator)[: CANDIDATES * scoring.wanted]
    asked = [scoring.positions[place] for place in sorted(order.tolist())]
    rollouts = roll_out(scoring.policy, form, trunks, asked, PROBES, scoring.ask(asked), scoring.generator)
    right = [form.judge(one.answer, trunks.documents[one.position.trunk], one.position.index) for one in rollouts]
    return Pool(asked, rollouts), 1 - torch.tensor(right).view(-1, PROBES).mean(1)


MEASURES: dict[str, Callable[[Scoring], tuple[Pool, Tensor]]] = {
    "random": lambda given: (Pool(given.positions), torch.rand(len(given.positions), generator=given.generator)),
    "loss": lambda given: (Pool(given.positions), _losses(given.policy, given.trunks, given.positions)),
    "learning-progress": _learning_progress,
    "pass-rate": _pass_rate,
}
