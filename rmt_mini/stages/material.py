"""What the stages work with: the answer format, and the model that measures entropies."""

from __future__ import annotations

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import CHUNK
from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import AnswerFormat, Chat, answer_format
from rmt_mini.engine.text import longest_read, require_room
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import token_entropy


def format_for(policy: Policy, config: RMTConfig, budget: int | None = None) -> AnswerFormat:
    """Return the answer format of the configuration, for its budgets and another ``budget`` that is stated, if any.

    Raises:
        UserError: if the tokenizer does not serve it, or the model cannot read as far as a branch may reach.
    """
    form = answer_format(config.answer_format, policy.tokenizer, policy.parameters, config.prefix_match, policy.turn)
    if isinstance(form, Chat):
        policy.turn = form.turn  # a template that states today's date continues with the same one
    require_room(policy.name, getattr(policy.model, "config", None), form, config, budget)
    return form


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
    """Return the model that measures entropies for the policy, loaded once, or None where it measures its own.

    Raises:
        UserError: if it cannot be had, numbers other tokens, reads fewer than ``longest``, or entropy_top_k exceeds the
            vocabulary.
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
