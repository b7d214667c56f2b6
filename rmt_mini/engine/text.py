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

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.errors import UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.records import Document

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


def longest_branch(form: AnswerFormat, config: RMTConfig, budget: int = 0, trunk: int = 0) -> int:
    """Return how many tokens a text and the longest branch off its end take together.

    Args:
        form: the answer format.
        config: document_tokens, budgets, budget_rule, use_budget.
        budget: that a measurement states beside those of ``config``, tokens; 0 where it states no other.
        trunk: tokens of the longest text, header included; 0 takes a document of document_tokens.
    """
    stated = _largest_budget(config, budget)
    opening = form.opening(stated if config.use_budget else None)
    frame = len(opening) + len(form.close) + len(form.cue([0] * 2 * TAIL_TOKENS, 2 * TAIL_TOKENS))
    trunk = trunk or len(form.trunk("")[0]) + config.document_tokens
    return trunk + frame + thought_cap(stated) + form.answer_limit


def _largest_budget(config: RMTConfig, budget: int) -> int:
    largest = max(config.budget_start, config.evaluation_budget, budget)
    return 2 * largest if config.use_budget and config.budget_rule == "entropy" else largest


def require_room(
    name: str, settings: Any, form: AnswerFormat, config: RMTConfig, budget: int = 0, trunk: int = 0
) -> None:
    """Refuse lengths beyond the positions that a model has learned: it would stop with an error, or talk nonsense.

    Args:
        name: of the model, as the user gave it.
        settings: the model's own configuration; None where it has none.
        form: the answer format.
        config: document_tokens, budgets, budget_rule.
        budget: as for ``longest_branch``.
        trunk: tokens of the longest question, where questions are asked.

    Raises:
        UserError: naming what to lower.
    """
    text = settings.get_text_config() if settings is not None else None
    most = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)  # MPT has the second
    needed = longest_branch(form, config, budget, trunk)
    if most is None or needed <= most:
        return
    settled = max(config.budget_start, config.evaluation_budget)
    if budget > settled:
        remedy = "lower the budget"
    else:
        flag = "--budget-start" if settled == config.budget_start else "--evaluation-budget"
        remedy = f"give shorter questions or lower {flag}" if trunk else f"lower --document-tokens or {flag}"
    what = f"the longest question has {trunk} tokens" if trunk else f"document_tokens is {config.document_tokens}"
    cap = thought_cap(_largest_budget(config, budget))
    raise UserError(
        f"{what}; with thoughts of up to {cap} tokens that makes {needed}, and model {name!r} reads at most {most}: "
        f"{remedy}"
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


def endless(texts: Sequence[Text], seed: int, start: int = 0) -> Iterator[Text]:
    """Yield texts in a new random order every epoch, from the ``start``-th on."""
    epoch, place = divmod(start, len(texts))
    while True:
        order = torch.randperm(len(texts), generator=generator_for(seed, "order", epoch)).tolist()
        yield from (texts[index] for index in order[place:])
        epoch, place = epoch + 1, 0
