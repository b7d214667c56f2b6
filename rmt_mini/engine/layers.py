"""Decoder layers of Llama's kind (SmolLM2, Mistral, Qwen2 and Qwen3) over packed tokens, on transformers' own weights.

They compute what transformers' layers do with fewer passes over memory: a norm, a rotation or a gate keeps its inputs
for the backward pass and nothing else. On a CPU, float32 products run by oneDNN, on AMD's processors two to three times
as fast as the default where they have AVX-512, and a tenth faster where not; while a model samples, its weights are
packed as oneDNN wants them, and the activation, the gate and the sums are part of the products. ``choose_tree``
compares a model's states and gradients with transformers' before it uses these layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAMES = {"input_layernorm", "post_attention_layernorm", *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))}
NAMES |= {"mlp.act_fn", *(f"self_attn.{name}_proj" for name in "qkvo")}
OPTIONAL = {"self_attn.q_norm", "self_attn.k_norm"}


def one_dnn(like: Tensor, packed: bool = False) -> bool:
    """Whether oneDNN multiplies tensors like this one faster than the default, or does so with packed weights."""
    if like.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    brief = packed and like.dtype == torch.bfloat16
    return like.dtype == torch.float32 or (brief and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute inputs (n, d) @ weight.T (d, m) + bias by oneDNN; ``weight`` (m, d) may be packed."""
    multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return multiplied


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute the same by whichever library is faster; no gradient passes where that is oneDNN."""
    return product(inputs, weight, bias) if one_dnn(inputs) else F.linear(inputs, weight, bias)


class _Linear(torch.autograd.Function):
    """A linear layer by oneDNN."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if needs_inputs else None,
            product(gradient.t(), inputs.t()) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a linear layer to inputs (n, d)."""
    if not one_dnn(inputs):
        return F.linear(inputs, module.weight, module.bias)
    multiplied: Tensor = _Linear.apply(inputs, module.weight, module.bias)  # type: ignore[no-untyped-call]
    return multiplied


class _Norm(torch.autograd.Function):
    """weight * x / rms(x); keeps x. With n = x / rms: dx = (g * weight - n * mean(g * weight * n)) / rms."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = size.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(x, inverse, out=torch.empty_like(x)).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        normed = torch.mul(x, inverse, out=torch.empty_like(x))
        shared = gradient * normed
        to_weight = shared.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        mean = F.linear(shared, weight[None]).div_(x.shape[-1])
        return torch.addcmul(gradient * weight, normed, mean, value=-1).mul_(inverse), to_weight, None


def norm(module: Any, x: Tensor) -> Tensor:
    """Apply an RMSNorm to the last dimension."""
    normed: Tensor = _Norm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


class _Rotate(torch.autograd.Function):
    """Rotary position embedding of x (n, heads, D) by cos and sin (n, 1, D); backward turns the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        turned = x * cos
        turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return turned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotate.apply(gradient, cos, -sin), None, None  # type: ignore[no-untyped-call]


class _Gate(torch.autograd.Function):
    """silu(gate) * up, of which the backward pass computes silu again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient * up, gate), F.silu(gate).mul_(gradient)


class _Layer:
    """The products of one decoder layer."""

    def __init__(self, layer: Any) -> None:
        self.attention, self.mlp = layer.self_attn, layer.mlp

    def project(self, x: Tensor) -> list[Tensor]:
        """Return queries, keys and values, (n, heads, D) each."""
        dim = self.attention.head_dim
        projections = (self.attention.q_proj, self.attention.k_proj, self.attention.v_proj)
        return [linear(projection, x).view(len(x), -1, dim) for projection in projections]

    def attended(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add to x what attention found."""
        return x + linear(self.attention.o_proj, attended)

    def fed(self, x: Tensor, normed: Tensor) -> Tensor:
        """Add to x what the gated layer computes."""
        gate, up = linear(self.mlp.gate_proj, normed), linear(self.mlp.up_proj, normed)
        gated: Tensor = _Gate.apply(gate, up)  # type: ignore[no-untyped-call]
        return x + linear(self.mlp.down_proj, gated)


class _PackedLayer(_Layer):
    """The same with packed weights: queries, keys and values are one product, and sums are part of products."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        attention, mlp = layer.self_attn, layer.mlp
        joint = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.sizes = [len(one.weight) // attention.head_dim for one in joint]
        biases = [one.bias for one in joint]
        bias = None if biases[0] is None else torch.cat(biases)
        self.qkv = (_pack(torch.cat([one.weight for one in joint])), bias)
        self.out, self.gate, self.up, self.down = (
            (_pack(one.weight), one.bias) for one in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def project(self, x: Tensor) -> list[Tensor]:
        return list(product(x, *self.qkv).view(len(x), -1, self.attention.head_dim).split(self.sizes, dim=1))

    def attended(self, x: Tensor, attended: Tensor) -> Tensor:
        summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(attended, x, *self.out, "add")
        return summed

    def fed(self, x: Tensor, normed: Tensor) -> Tensor:
        gate = torch.ops.mkldnn._linear_pointwise(normed, *self.gate, "swish", [], "")
        gated = torch.ops.mkldnn._linear_pointwise.binary(normed, gate, *self.up, "mul")
        summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(gated, x, *self.down, "add")
        return summed


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 64)  # for some 64 rows; any will do
    return packed


class LlamaLayers:
    """Run a decoder of Llama's kind; AttributeError or ValueError where it is of another."""

    def __init__(self, model: Any) -> None:
        self.decoder = model.get_decoder()
        self.layers = [_Layer(layer) for layer in self.decoder.layers]
        self.scaling = self.layers[0].attention.scaling
        for layer in self.decoder.layers:
            found = {name for name, module in layer.named_modules() if not list(module.children())}
            if found - OPTIONAL != NAMES or model.config.hidden_act not in ("silu", "swish"):
                raise ValueError(f"{type(layer).__name__} is not a layer of Llama's kind")
        if model.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"{model.dtype}: transformers' norms compute in float32")

    def __call__(self, tokens: Tensor, position_ids: Tensor, tree_pass: Any) -> Tensor:
        """Return the hidden states (n, d) of packed tokens (n,) at their positions (n,)."""
        x: Tensor = self.decoder.embed_tokens(tokens)
        cos, sin = (part[0, :, None] for part in self.decoder.rotary_emb(x[None], position_ids[None]))
        for number, (layer, own) in enumerate(zip(self.decoder.layers, self.layers, strict=True)):
            query, key, value = own.project(norm(layer.input_layernorm, x))
            if hasattr(layer.self_attn, "q_norm"):
                query, key = norm(layer.self_attn.q_norm, query), norm(layer.self_attn.k_norm, key)
            query, key = (_Rotate.apply(part, cos, sin) for part in (query, key))  # type: ignore[no-untyped-call]
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
            x = own.attended(x, tree_pass.attend(number, query, key, value, self.scaling).flatten(1))
            x = own.fed(x, norm(layer.post_attention_layernorm, x))
        return norm(self.decoder.norm, x)

    @contextmanager
    def packed(self) -> Iterator[None]:
        """Sample inside the block, on a CPU, with weights packed as they are now."""
        plain = self.layers
        if one_dnn(self.decoder.embed_tokens.weight, packed=True):
            self.layers = [_PackedLayer(layer) for layer in self.decoder.layers]
        try:
            yield
        finally:
            self.layers = plain
