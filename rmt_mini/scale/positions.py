"""Which positions does a step think about, and under which budgets? The same on every process.

A step t: N documents in the seed's order, the entropies of their tokens under the policy as it is now, tiers, and from
them the set C by the very TierSampler that the document tree uses. All of it depends on settings, seed and entropies
alone; entropies are shared between processes to the last bit, and so every process draws the same C and no one has to
send it around.

Departure from TRL: its data set is fixed before training. Ours holds places (the 1st to the K * N-th of a step); which
positions stand there is settled when a step begins, since difficulty follows the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.text import QUANTILE_TEXTS, endless
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import assign_tiers, quantile_thresholds
from rmt_mini.method.schedule import budget_of, budgets_for, outside, sampler_for
from rmt_mini.records import Position, Text

Read = Callable[[Sequence[Text]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Question:
    """One position of C as its rollouts are asked.

    Attributes:
        text: the document.
        position: where in it; ``trunk`` counts the documents of the step.
        budget: B_t of this position, tokens.
        stated: the budget as the opening states it; None where none is stated.
    """

    text: Text
    position: Position
    budget: int
    stated: int | None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step trains on.

    Attributes:
        step: t.
        budget: B_t, tokens.
        texts: N documents.
        questions: C, by document and index; K * N of them.
        masks: for each document, bool (T,): its tokens that the next-token loss trains on, none of them in C.
    """

    step: int
    budget: int
    texts: tuple[Text, ...]
    questions: tuple[Question, ...]
    masks: tuple[Tensor, ...]

    @property
    def ntp_tokens(self) -> int:
        """Tokens of the next-token loss in the whole step, over all processes."""
        return sum(int(mask.sum()) for mask in self.masks)

    @property
    def tier_counts(self) -> tuple[int, int, int]:
        """Positions of C that are easy, medium and hard."""
        tiers = [question.position.tier for question in self.questions]
        return tiers.count(0), tiers.count(1), tiers.count(2)


class Positions:
    """Draw each step's positions, budgets and masks.

    Args:
        config: all settings.
        texts: training texts.

    Attributes:
        step: t, moved by the callback.

    Raises:
        UserError: if a step's documents may hold fewer positions than it asks.

    Example:
        >>> texts = [Text("a", (5, 6, 7, 8), first=1)]
        >>> config = RMTConfig(documents_per_step=1, positions_per_document=2, min_document_tokens=4)
        >>> plan = Positions(config, texts).draw(lambda read: [torch.zeros(4)])
        >>> [question.position.index for question in plan.questions], plan.masks[0].int().tolist()
        ([2, 3], [0, 1, 0, 0])
    """

    def __init__(self, config: RMTConfig, texts: Sequence[Text]) -> None:
        fewest = min(len(text.places) for text in texts)
        if fewest < config.positions_per_document:
            raise UserError(
                f"positions_per_document is {config.positions_per_document}, but the shortest text has {fewest} "
                f"positions; lower it or raise --min-document-tokens"
            )
        self.config, self.texts, self.step = config, texts, 0
        self.sampler = sampler_for(config)
        self.thresholds = config.tier_thresholds if config.tier_rule == "fixed" else None

    def draw(self, read: Read) -> StepPlan:
        """Draw step ``step``.

        Args:
            read: gives the entropies of documents' tokens under the policy as it is, (T_n,) each, nats, on the CPU; the
                same on every process.

        Returns:
            The plan.
        """
        config, size = self.config, self.config.documents_per_step
        if self.thresholds is None:
            sample = self.texts[:QUANTILE_TEXTS]
            measured = [found[list(text.places)] for text, found in zip(sample, read(sample), strict=True)]
            self.thresholds = quantile_thresholds(torch.cat(measured), config.tier_thresholds)
        texts = tuple(islice(endless(self.texts, config.seed, self.step * size), size))
        entropies = read(texts)
        tiers = [assign_tiers(one, self.thresholds).tolist() for one in entropies]
        pool = [
            Position(n, index, tiers[n][index], float(entropies[n][index]))
            for n, text in enumerate(texts)
            for index in text.places
        ]
        wanted = config.positions_per_document * size
        drawn = self.sampler.sample(torch.tensor([position.tier for position in pool]), wanted, self.step)
        chosen = [pool[place] for place in sorted(drawn.tolist())]
        budget = budget_of(config, self.step)
        questions = tuple(
            Question(texts[position.trunk], position, own, own if config.use_budget else None)
            for position, own in zip(chosen, budgets_for(config, budget, chosen), strict=True)
        )
        return StepPlan(self.step, budget, texts, questions, tuple(outside(texts, chosen)))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next draws depend on, as JSON keeps it."""
        sampler = self.sampler.state_dict()
        return {
            "step": self.step,
            "generator": bytes(sampler["generator"].tolist()).hex(),
            "counts": sampler["counts"],
            "thresholds": self.thresholds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another, of the same settings and texts, stood."""
        generator = torch.tensor(list(bytes.fromhex(state["generator"])), dtype=torch.uint8)
        self.sampler.load_state_dict({"generator": generator, "counts": state["counts"]})
        self.step = state["step"]
        self.thresholds = None if state["thresholds"] is None else (state["thresholds"][0], state["thresholds"][1])


def places(config: RMTConfig) -> dict[str, list[Any]]:
    """Return the columns of TRL's data set: the places of every step, in order.

    Returns:
        "prompt", empty until a step begins, and "place", which counts the positions of a step.

    Example:
        >>> places(RMTConfig(steps=2, documents_per_step=1, positions_per_document=2))["place"]
        [0, 1, 0, 1]
    """
    each = config.positions_per_document * config.documents_per_step
    return {"prompt": [""] * (config.steps * each), "place": [*range(each)] * config.steps}
