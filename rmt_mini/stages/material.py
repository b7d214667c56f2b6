"""What the stages work on: documents as token ids, their difficulty, and seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import CHUNK
from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import AnswerFormat, Chat, answer_format
from rmt_mini.engine.text import QUANTILE_TEXTS, Text, longest_read, require_room
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import assign_tiers, quantile_thresholds, token_entropy


def format_for(policy: Policy, config: RMTConfig, budget: int = 0) -> AnswerFormat:
    """Return the answer format that the configuration asks for.

    Args:
        policy: the model; its ``turn`` is set by the first call, so that a template that states today's date goes on
            with the same one.
        config: answer_format, prefix_match, document_tokens, budgets.
        budget: that a measurement states beside those of ``config``, tokens; 0 where it states no other.

    Raises:
        UserError: if the tokenizer does not serve it, or the model cannot read as far as a branch may reach.
    """
    form = answer_format(config.answer_format, policy.tokenizer, policy.parameters, config.prefix_match, policy.turn)
    if isinstance(form, Chat):
        policy.turn = form.turn
    require_room(policy.name, getattr(policy.model, "config", None), form, config, budget)
    return form


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


def proxy_of(policy: Policy, config: RMTConfig, longest: int = 0) -> Policy | None:
    """Return the model that measures entropies in the policy's place, or None; it is loaded once for a policy.

    Args:
        policy: the model.
        config: entropy_model, entropy_top_k.
        longest: tokens of the longest text that it will read, where that is known.

    Raises:
        UserError: if it cannot be had, numbers other tokens or reads fewer, or entropy_top_k exceeds the vocabulary.
    """
    if config.entropy_model == "self":
        policy.proxy = None
    elif policy.proxy is None or policy.proxy.name != config.entropy_model:
        policy.proxy = load_policy(config.entropy_model, config.device, config.dtype)
    measuring = policy.proxy or policy
    vocabulary = len(measuring.model.get_output_embeddings().weight)
    if config.entropy_top_k > vocabulary:
        raise UserError(
            f"entropy_top_k is {config.entropy_top_k}, and model {measuring.name!r} knows {vocabulary} tokens; give at "
            f"most that many, or 0 for all"
        )
    if policy.proxy is None:
        return None
    if policy.proxy.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise UserError(
            f"entropy_model {config.entropy_model!r} has another tokenizer than {policy.name!r}; choose a proxy of the "
            f"same family, or 'self'"
        )
    most = longest_read(policy.proxy.model.config)
    if most is not None and longest > most:
        raise UserError(
            f"entropy_model {config.entropy_model!r} reads at most {most} tokens, and the longest text has {longest}; "
            f"lower --document-tokens, or choose another"
        )
    return policy.proxy


class Difficulty:
    """Sort the tokens of trunks into tiers: by the policy's own entropy or a small proxy model's.

    RPT filters with a proxy once; here, as in RMT, the policy's own entropy is the default and drifts as it learns.

    Args:
        policy: the model that is trained.
        config: entropy_top_k, entropy_model, tier_rule, tier_thresholds.
        texts: training texts, from which the rule ``quantile`` takes its thresholds, once.

    Raises:
        UserError: if the proxy cannot be had or numbers other tokens, or entropy_top_k exceeds the vocabulary.
    """

    def __init__(self, policy: Policy, config: RMTConfig, texts: Sequence[Text]) -> None:
        self.policy, self.top_k = policy, config.entropy_top_k
        self.proxy = proxy_of(policy, config)
        self.thresholds = config.tier_thresholds
        if config.tier_rule == "quantile":
            sample = list(texts[:QUANTILE_TEXTS])
            with torch.no_grad():
                entropies = [
                    entropy[list(text.places)]
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
