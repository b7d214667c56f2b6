"""Entropy over a text, cut into tiers: what the thresholds and the top-k do to it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from rmt_mini.method.entropy import token_entropy
from rmt_mini.report.plots import Stack, entropy_histogram, heat_map, stacked
from rmt_mini.teaching.widgets.answers import DOCUMENTS, micro_world, words
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, whole


@lru_cache(maxsize=1)
def _predictions() -> tuple[list[list[str]], list[Tensor]]:
    """Tokens of every text, and the logits that predict all but the first of them."""
    policy, form, texts = micro_world()
    trunks = [form.trunk(text)[0] for text in texts]
    with torch.no_grad():
        read = policy.tree.read(trunks)
        return [words(form, ids) for ids in trunks], [policy.head(hidden[:-1]) for hidden in read.hidden]


@lru_cache(maxsize=64)
def _entropies(top_k: int) -> list[list[float]]:
    return [token_entropy(logits, top_k or None).tolist() for logits in _predictions()[1]]


def show_tiers(document: int, low: float, high: float, top_k: int = 0) -> Stack:
    """Draw one text's tokens by tier, and how all texts' entropies are spread.

    Args:
        document: which text of the micro-world.
        low: up to it a token is easy, nats.
        high: above it a token is hard, nats.
        top_k: entropy over the k likeliest tokens only; 0 takes all.

    Raises:
        ValueError: if low exceeds high, or as ``token_entropy``.
    """
    entropies = _entropies(top_k)
    everywhere = [entropy for one in entropies for entropy in one]
    return stacked(
        heat_map(_predictions()[0][document], entropies[document], (low, high)),
        entropy_histogram(everywhere, (low, high)),
    )


def entropy_explorer() -> Explorer:
    """Move two thresholds and the top-k over a text and a histogram."""
    return explore(
        show_tiers,
        document=whole("text", 2, 0, DOCUMENTS - 1),
        low=number("threshold 1, nats", 0.5, 0.0, 4.0),
        high=number("threshold 2, nats", 1.9, 0.0, 4.0),
        top_k=whole("top k (0: all)", 0, 0, 32),
    )
