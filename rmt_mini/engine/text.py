"""Documents as trunks: what training knows of a text, whatever model reads it.

Tokenized, cut, and dealt out in an order that the seed fixes. Nothing here touches a model, so that ``scale``, which
leaves models to TRL, works on the same texts in the same order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.errors import UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.objective import ntp_mask
from rmt_mini.records import Document, Position

logger = logging.getLogger(__name__)

QUANTILE_TEXTS = 64  # from which tier_rule "quantile" takes its thresholds


@dataclass(frozen=True, slots=True)
class Text:
    """A document as a trunk.

    Attributes:
        id: the document's.
        ids: its tokens.
        first: the first index that may be asked for.
        sorts: what a generated text knows about each token, for measuring only; empty for any other text.
        asked: the only indices that may be asked for; None is every one from ``first`` on.
    """

    id: str
    ids: tuple[int, ...]
    first: int
    sorts: tuple[str, ...] = ()
    asked: tuple[int, ...] | None = None

    @property
    def places(self) -> Sequence[int]:
        """Indices that may be asked for."""
        return range(self.first, len(self.ids)) if self.asked is None else self.asked


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the purpose alone.

    Every step has its own, so that a resumed run draws what the unbroken one would have drawn.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def longest_branch(form: AnswerFormat, config: RMTConfig) -> int:
    """Return how many tokens a document and the longest branch off its end take together."""
    budget = max(config.budget_start, config.evaluation_budget)
    header, _ = form.trunk("")
    frame = len(form.opening(budget)) + len(form.close) + len(form.cue([0] * TAIL_TOKENS, TAIL_TOKENS))
    return len(header) + config.document_tokens + frame + thought_cap(budget) + form.answer_limit


def require_room(name: str, settings: Any, form: AnswerFormat, config: RMTConfig) -> None:
    """Refuse lengths beyond the positions that a model has learned: it would stop with an error, or talk nonsense.

    Args:
        name: of the model, as the user gave it.
        settings: the model's own configuration; None where it has none.
        form: the answer format.
        config: document_tokens and budgets.

    Raises:
        UserError: naming what to lower.
    """
    most = getattr(settings.get_text_config(), "max_position_embeddings", None) if settings is not None else None
    budget, needed = max(config.budget_start, config.evaluation_budget), longest_branch(form, config)
    if most is not None and needed > most:
        raise UserError(
            f"document_tokens is {config.document_tokens}; with thoughts of up to {thought_cap(budget)} tokens that "
            f"makes {needed}, and model {name!r} reads at most {most}: lower --document-tokens or --budget-start"
        )


def to_texts(documents: Sequence[Document], form: AnswerFormat, config: RMTConfig, where: str) -> list[Text]:
    """Tokenize documents, cut long ones, leave out short ones (and those of one token, which has none before it).

    Raises:
        UserError: if none is left.
    """
    texts = []
    least = max(2, config.min_document_tokens)
    for document in documents:
        ids, first = form.trunk(document.text)
        if len(ids) - first + 1 >= least:
            kept = tuple(ids[: first - 1 + config.document_tokens])
            texts.append(Text(document.id, kept, first, _sorts(document, form, first)[: len(kept)]))
    if not texts:
        raise UserError(
            f"corpus {config.corpus!r}: none of the {len(documents)} {where} documents has min_document_tokens "
            f"({least}) tokens; give longer text or a smaller --min-document-tokens"
        )
    if len(texts) < len(documents):
        logger.info(
            "%d of %d %s documents are too short and left out", len(documents) - len(texts), len(documents), where
        )
    return texts


def _sorts(document: Document, form: AnswerFormat, first: int) -> tuple[str, ...]:
    """Carry the sorts of a document's spans over to its tokens."""
    if not document.spans:
        return ()
    encoded = form.tokenizer(
        document.text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    offsets = encoded["offset_mapping"]
    named = [next((s.sort for s in document.spans if start < s.stop and s.start < stop), "") for start, stop in offsets]
    return (*[""] * (first - 1), *named)


def outside(texts: Sequence[Text], positions: Sequence[Position]) -> list[Tensor]:
    """Mark the tokens of a step's texts that the next-token loss trains on: those outside C.

    A text may come twice in a step, where an epoch ends within it, say. A position of one copy is in C for both.

    Args:
        texts: of the step.
        positions: C; ``trunk`` counts the texts.

    Returns:
        For each text bool (T,), on the CPU.

    Example:
        >>> twice = [Text("a", (5, 6, 7), first=1)] * 2
        >>> [mask.int().tolist() for mask in outside(twice, [Position(1, 2, tier=0, entropy=0.5)])]
        [[0, 1, 0], [0, 1, 0]]
    """
    chosen: dict[tuple[int, ...], list[int]] = {}
    for position in positions:
        chosen.setdefault(texts[position.trunk].ids, []).append(position.index)
    return [ntp_mask(len(text.ids), chosen.get(text.ids, []), text.first) for text in texts]


def endless(texts: Sequence[Text], seed: int, start: int = 0) -> Iterator[Text]:
    """Yield texts in a new random order every epoch, from the ``start``-th on."""
    epoch, place = divmod(start, len(texts))
    while True:
        order = torch.randperm(len(texts), generator=generator_for(seed, "order", epoch)).tolist()
        yield from (texts[index] for index in order[place:])
        epoch, place = epoch + 1, 0
