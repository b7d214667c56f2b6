"""What the stages work on: documents as token ids, their difficulty, and seeds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import CHUNK
from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat, answer_format
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.entropy import assign_tiers, quantile_thresholds, token_entropy
from rmt_mini.records import Document

logger = logging.getLogger(__name__)


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


def format_for(policy: Policy, config: RMTConfig) -> AnswerFormat:
    """Return the answer format that the configuration asks for.

    Raises:
        UserError: if the tokenizer does not serve it, or the model cannot read as far as a branch may reach.
    """
    form = answer_format(config.answer_format, policy.tokenizer, policy.parameters, config.prefix_match)
    _require_room(policy, form, config)
    return form


def _require_room(policy: Policy, form: AnswerFormat, config: RMTConfig) -> None:
    """Refuse lengths beyond the positions that a model has learned: it would stop with an error, or talk nonsense."""
    settings = getattr(policy.model, "config", None)
    most = getattr(settings.get_text_config(), "max_position_embeddings", None) if settings is not None else None
    budget = max(config.budget_start, config.evaluation_budget)
    header, _ = form.trunk("")
    frame = len(form.opening(budget)) + len(form.close) + len(form.cue([0] * TAIL_TOKENS, TAIL_TOKENS))
    needed = len(header) + config.document_tokens + frame + thought_cap(budget) + form.answer_limit
    if most is not None and needed > most:
        raise UserError(
            f"document_tokens is {config.document_tokens}; with thoughts of up to {thought_cap(budget)} tokens that "
            f"makes {needed}, and model {policy.name!r} reads at most {most}: lower --document-tokens or --budget-start"
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


def on_device(texts: Sequence[Text], policy: Policy) -> list[Tensor]:
    """Return the texts' ids as tensors."""
    return [torch.tensor(text.ids, device=policy.device) for text in texts]


@torch.no_grad()
def trunk_entropy(policy: Policy, trunks: Trunks, top_k: int) -> list[Tensor]:
    """Entropy of the next-token distribution at every token of every trunk, nats; index 0 has none and holds 0."""
    entropies = []
    for hidden in trunks.hidden:
        parts = [
            token_entropy(policy.head(hidden[start : start + CHUNK]), top_k or None)
            for start in range(0, len(hidden) - 1, CHUNK)
        ]
        predicted = torch.cat(parts)[: len(hidden) - 1]
        entropies.append(torch.cat([predicted.new_zeros(1), predicted]).cpu())
    return entropies


class Difficulty:
    """Sort the tokens of trunks into tiers: by the policy's own entropy or a small proxy model's.

    RPT filters with a proxy once; here, as in RMT, the policy's own entropy is the default and drifts as it learns.

    Args:
        policy: the model that is trained.
        config: entropy_top_k, entropy_model, tier_rule, tier_thresholds.
        texts: training texts, from which the rule ``quantile`` takes its thresholds, once.
    """

    def __init__(self, policy: Policy, config: RMTConfig, texts: Sequence[Text]) -> None:
        self.policy, self.top_k = policy, config.entropy_top_k
        self.proxy = None if config.entropy_model == "self" else load_policy(config.entropy_model, config.device)
        if self.proxy is not None and self.proxy.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise UserError(
                f"entropy_model {config.entropy_model!r} has another tokenizer than {policy.name!r}; choose a proxy "
                f"of the same family, or 'self'"
            )
        self.thresholds = config.tier_thresholds
        if config.tier_rule == "quantile":
            sample = list(texts[:64])
            with torch.no_grad():
                entropies = [
                    entropy[text.first :]
                    for text in sample
                    for entropy in self.entropy(policy.tree.read(on_device([text], policy)))
                ]
            self.thresholds = quantile_thresholds(torch.cat(entropies), config.tier_thresholds)

    def entropy(self, trunks: Trunks) -> list[Tensor]:
        """Entropies of every token of every trunk, (T_n,) each, on the CPU."""
        if self.proxy is None:
            return trunk_entropy(self.policy, trunks, self.top_k)
        with torch.no_grad():
            read = self.proxy.tree.read([ids.to(self.proxy.device) for ids in trunks.ids])
        return trunk_entropy(self.proxy, read, self.top_k)

    def tiers(self, entropies: Sequence[Tensor]) -> list[Tensor]:
        """Tiers of the same shape as the entropies."""
        return [assign_tiers(entropy, self.thresholds) for entropy in entropies]
