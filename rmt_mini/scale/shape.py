"""A model's size from its configuration alone: nothing is downloaded, and nothing is loaded.

Covers the decoders of Llama's form (SmolLM2, Llama, Qwen2, Qwen3): grouped-query attention, a gated feed-forward layer,
RMS norms. Parameters are counted one by one; a test holds the counts to models that transformers made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmt_mini.errors import UserError

KINDS = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        layers: L.
        hidden: d.
        heads: query heads.
        kv_heads: key/value heads.
        head_dim: D.
        intermediate: width inside a feed-forward layer.
        vocabulary: V.
        tied: whether the output embedding is the input embedding.
        biases: whether queries, keys and values have biases (Qwen2).
        head_norms: whether queries and keys are normalised by head (Qwen3).

    Example:
        >>> round(KNOWN["smollm2-135m"].parameters / 1e6, 1), KNOWN["smollm2-135m"].kv_bytes()
        (134.5, 23040)
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    biases: bool = False
    head_norms: bool = False

    @property
    def parameters(self) -> int:
        """Number of parameters, each counted once."""
        d, queries, keys = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * d * queries + 2 * d * keys + (queries + 2 * keys) * self.biases
        attention += 2 * self.head_dim * self.head_norms
        layer = attention + 3 * d * self.intermediate + 2 * d
        return self.layers * layer + d + self.vocabulary * d * (1 if self.tied else 2)

    @property
    def multiplied(self) -> int:
        """Parameters that every token is multiplied with: all but the input embedding."""
        return self.parameters - (0 if self.tied else self.vocabulary * self.hidden)

    @property
    def head(self) -> int:
        """Parameters of the output embedding, which only tokens with a loss or a sample are multiplied with."""
        return self.vocabulary * self.hidden

    def kv_bytes(self, width: int = 2) -> int:
        """Return the key/value cache of one token, bytes, at ``width`` bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_dim * width

    def attention_operations(self, context: float) -> float:
        """Return the operations of one token's attention to ``context`` tokens, forward, all layers."""
        return 4 * self.layers * self.heads * self.head_dim * context


KNOWN = {
    "smollm2-135m": Shape(30, 576, 9, 3, 64, 1536, 49152, tied=True),
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 16, 8, 128, 3072, 151936, tied=True, head_norms=True),
    "Qwen/Qwen3-14B": Shape(40, 5120, 40, 8, 128, 17408, 151936, tied=False, head_norms=True),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": Shape(48, 5120, 40, 8, 128, 13824, 152064, tied=False, biases=True),
}


def shape_of(name: str) -> Shape:
    """Return the shape of a model.

    Args:
        name: one of KNOWN, or a folder with config.json.

    Raises:
        UserError: if neither, or the model is of another form.
    """
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name).expanduser() / "config.json"
    try:
        return shape_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"model {name!r}: its size is not known; give a folder with config.json, or one of {', '.join(KNOWN)}"
        ) from error


def shape_from(config: Mapping[str, Any]) -> Shape:
    """Read a shape out of a config.json.

    Raises:
        UserError: if the model is of another form.
    """
    kind = config["model_type"]
    if kind not in KINDS:
        raise UserError(f"model_type is {kind!r}; sizes are known for {', '.join(KINDS)}")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return Shape(
        config["num_hidden_layers"],
        hidden,
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        config["intermediate_size"],
        config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        biases=kind == "qwen2",
        head_norms=kind == "qwen3",
    )
