"""Which positions does a step think about, and under which budgets?

Entropies are shared between processes to the last bit, so every process draws the same set C and nothing has to be
sent. TRL fixes its data set before training; ours has K * N places a step, which are filled when the step begins.
"""

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
from rmt_mini.method.schedule import budget_of, budgets_for, draw, outside, sampler_for
from rmt_mini.records import Position, Text

Read = Callable[[Sequence[Text]], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class AskedPosition:
    """One position of C: its document, and its budget B_t in tokens; the opening states it where budgets are used."""

    text: Text
    position: Position
    budget: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step trains on."""

    step: int  # t
    budget: int  # B_t, tokens
    texts: tuple[Text, ...]  # N documents
    questions: tuple[AskedPosition, ...]  # C, by document and index; K * N of them
    masks: tuple[Tensor, ...]  # bool (T,) by document: the tokens that the next-token loss trains on, none in C

    @property
    def ntp_tokens(self) -> int:
        """Tokens of the next-token loss in the whole step, over all processes."""
        return sum(int(mask.sum()) for mask in self.masks)


class Positions:
    """Draw the positions, budgets and masks of step ``step``, which the callback sets."""

    def __init__(self, config: RMTConfig, texts: Sequence[Text]) -> None:
        fewest = min(len(text.places) for text in texts)
        if fewest < config.positions_per_document:
            why = f"but the shortest text has {fewest} positions; lower it or raise --min-document-tokens"
            raise UserError(f"positions_per_document is {config.positions_per_document}, {why}")
        self.config, self.texts, self.step = config, texts, 0
        self.sampler = sampler_for(config)
        self.thresholds = config.tier_thresholds if config.tier_rule == "fixed" else None

    def draw(self, read: Read) -> StepPlan:
        """Draw the step; ``read`` gives the entropies of documents' tokens, (T_n,) each, in nats, on the CPU."""
        config, size = self.config, self.config.documents_per_step
        if self.thresholds is None:
            sample = self.texts[:QUANTILE_TEXTS]
            measured = [found[list(text.places)] for text, found in zip(sample, read(sample), strict=True)]
            self.thresholds = quantile_thresholds(torch.cat(measured), config.tier_thresholds)
        texts = tuple(islice(endless(self.texts, config.seed, self.step * size), size))
        pool: list[Position] = []
        for n, (text, entropy) in enumerate(zip(texts, read(texts), strict=True)):
            tiers = assign_tiers(entropy, self.thresholds).tolist()
            pool += [Position(n, index, tiers[index], float(entropy[index])) for index in text.places]
        chosen = draw(self.sampler, pool, config.positions_per_document * size, self.step)
        budget = budget_of(config, self.step)
        budgets = zip(chosen, budgets_for(config, budget, chosen), strict=True)
        questions = tuple(AskedPosition(texts[position.trunk], position, own) for position, own in budgets)
        return StepPlan(self.step, budget, texts, questions, tuple(outside(texts, chosen)))

    def state_dict(self) -> dict[str, Any]:
        """Return what the next draws depend on, as JSON keeps it."""
        sampler = self.sampler.state_dict()
        return sampler | {"generator": sampler["generator"].tolist(), "thresholds": self.thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another, of the same settings and texts."""
        generator = torch.tensor(state["generator"], dtype=torch.uint8)
        self.sampler.load_state_dict({"generator": generator, "counts": state["counts"]})
        self.thresholds = state["thresholds"] and (state["thresholds"][0], state["thresholds"][1])
