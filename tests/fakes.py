"""Fakes instead of downloads: tiny random models, a byte-level tokenizer, an answer format on bare token ids."""

from collections.abc import Callable, Sequence
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.plain import PlainTree
from rmt_mini.engine.tree import Documents, Trunks

SIZES: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
SHAPES = ("llama", "qwen2", "qwen3")
SPECIALS = ["<|end|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_signs() -> dict[int, str]:
    """Return GPT-2's table, in which most bytes are their own sign."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def byte_tokenizer(words: Sequence[str] = (), template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token a byte, three specials, and each of ``words`` as one token besides."""
    table = byte_signs()
    vocabulary = {table[byte]: byte for byte in range(256)}  # the id of a byte is the byte
    merges: list[tuple[str, str]] = []
    for word in words:
        grown = ""
        for byte in word.encode():
            if grown and grown + table[byte] not in vocabulary:
                merges.append((grown, table[byte]))
                vocabulary[grown + table[byte]] = len(vocabulary)
            grown += table[byte]
    inner = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=SPECIALS[0], additional_special_tokens=SPECIALS[1:]
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_config(shape: str, vocabulary: int, **changes: Any) -> PreTrainedConfig:
    """Configure two layers, four query heads on two key heads, d = 32; tied embeddings where the real ones are."""
    common: dict[str, Any] = SIZES | {
        "vocab_size": vocabulary, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "tie_word_embeddings": shape != "qwen2",
    }  # fmt: skip
    if shape == "qwen3":
        common["head_dim"] = 12  # not d / heads, as in the real ones
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[shape]
    return config(**common | changes)


def tiny_model(
    shape: str = "llama",
    dtype: torch.dtype = torch.float32,
    vocabulary: int = 259,
    seed: int = 0,
    **changes: Any,
) -> Any:
    """Make a random model whose attention is sharp, so that a wrong mask or position shows.

    At transformers' own initial weights attention is nearly uniform. In float64 the norms compute in float64 too
    (transformers' own are fp32 inside, and would round a comparison to 1e-7).
    """
    model = AutoModelForCausalLM.from_config(tiny_config(shape, vocabulary, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(noise * (0.3 if parameter.ndim == 2 else 0.5))
    if dtype == torch.float64:
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = MethodType(_norm, module)
    return model.to(dtype)


def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def make_tiny_policy(
    shape: str = "llama",
    dtype: torch.dtype = torch.float32,
    *,
    tokenizer: Any = None,
    vocabulary: int | None = None,
    seed: int = 0,
    **changes: Any,
) -> Policy:
    """Make a policy of a tiny random model and, unless a vocabulary is given, the byte tokenizer."""
    if vocabulary is None:
        tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
        vocabulary = len(tokenizer)
    return make_policy(f"tiny-{shape}", tiny_model(shape, dtype, vocabulary, seed, **changes), tokenizer)


class ScriptedTree(PlainTree):
    """The plain tree of a model that is a function: all tokens so far -> the next one, all but surely.

    It is asked in branches only; over the documents themselves its distribution is uniform.
    """

    def __init__(self, script: Callable[[list[int]], int], vocabulary: int) -> None:
        self.script, self.vocabulary = script, vocabulary

    def read(self, documents: Documents) -> Trunks:
        trunks = Trunks.of(documents, torch.device("cpu"))
        trunks.hidden = [torch.zeros(len(ids), self.vocabulary) for ids in trunks.ids]
        return trunks

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(len(ids), self.vocabulary)
        hidden[-1, self.script(ids.tolist())] = 50.0
        return hidden


def scripted_policy(script: Callable[[list[int]], int], tokenizer: Any) -> Policy:
    """Make a policy that says what the script says; its hidden states are its logits."""
    vocabulary = len(tokenizer)
    head = nn.Linear(vocabulary, vocabulary, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(vocabulary))
    model = SimpleNamespace(get_output_embeddings=lambda: head, parameters=head.parameters)
    tree = ScriptedTree(script, vocabulary)
    return Policy("scripted", model, tokenizer, tree, torch.device("cpu"), torch.float32)


class BareFormat:
    """An answer format on bare ids, for vocabularies too small for text.

    Opening 1, then 2 where a budget is stated; closing tag (3, 4); cue 5 and the last two tokens of the trunk; the
    answer ends at 2, or at its limit.
    """

    name = "bare"

    def __init__(self, answer_limit: int = 1) -> None:
        self.close = [3, 4]
        self.answer_limit = answer_limit

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [int(word) for word in text.split()], 1

    def opening(self, budget: int | None) -> list[int]:
        return [1] if budget is None else [1, 2]

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return [5, *trunk[max(0, index - 2) : index]]

    def finished(self, answer: Sequence[int]) -> bool:
        return len(answer) >= self.answer_limit or answer[-1] == 2

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        return float(answer[0] == trunk[index])


def widen(policy: Policy, token: int, factor: float) -> Policy:
    """Scale a token's output row: its logit swings more, so that it is now the likeliest token and now the least."""
    with torch.no_grad():
        policy.head.weight[token] *= factor
    return policy
