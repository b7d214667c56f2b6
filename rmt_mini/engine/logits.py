"""Logits only where a loss or a sample needs them, a chunk at a time.

Logits for every token of a step, (3,000 x 49,152) in fp32, cost more memory than the model. Here a chunk's logits exist
only while its log-probabilities are computed; the backward pass recomputes them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmt_mini.engine.layers import multiply

BLOCK = 256  # tokens whose probabilities are summed before one of them is drawn
CHUNK = 128  # rows at once on a CPU; more leave its cache, and take half as long again
GPU_CHUNK = 4096


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = multiply(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits.div_(temperature)


def pieces(hidden: Tensor) -> list[slice]:
    """Return the rows of hidden states (n, d) whose logits are computed at once."""
    size = CHUNK if hidden.device.type == "cpu" else GPU_CHUNK
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


class _TargetLogprobs(torch.autograd.Function):
    """log softmax((hidden @ weight.T + bias) / temperature) at the targets; no logits are kept between the passes.

    Backward, with p = softmax and g the incoming gradient: dlogits = g * (onehot(target) - p) / temperature.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> Tensor:
        normalisers, logprobs = [], []
        for piece in pieces(hidden):
            logits = _logits(hidden[piece], weight, bias, temperature)
            chosen = logits.gather(-1, targets[piece, None])[:, 0]
            normalisers.append(logits.logsumexp(-1))
            logprobs.append(chosen - normalisers[-1])
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(normalisers))
        ctx.temperature = temperature
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, targets, normalisers = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        for piece in pieces(hidden):
            probabilities = _logits(hidden[piece], weight, bias, ctx.temperature).sub_(normalisers[piece, None]).exp_()
            scaled = gradient[piece, None] / ctx.temperature
            to_logits = probabilities.mul_(-scaled).scatter_add_(-1, targets[piece, None], scaled).to(hidden.dtype)
            to_hidden[piece] = multiply(to_logits, weight.t())
            if to_weight is not None:
                to_weight.addmm_(to_logits.t(), hidden[piece])
            if to_bias is not None:
                to_bias += to_logits.sum(0)
        return to_hidden, to_weight, to_bias, None, None


def target_logprobs(head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute log softmax(head(hidden) / temperature), (n,) in fp32 or better, at the targets (n,) of hidden (n, d).

    Example:
        >>> head = nn.Linear(2, 4, bias=False); _ = nn.init.zeros_(head.weight)
        >>> round(target_logprobs(head, torch.ones(1, 2), torch.tensor([3])).exp().item(), 2)
        0.25
    """
    if len(targets) == 0:
        return hidden.sum(-1).to(torch.promote_types(hidden.dtype, torch.float32))  # empty, and part of the graph
    bias = getattr(head, "bias", None)
    logprobs: Tensor = _TargetLogprobs.apply(hidden, head.weight, bias, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs


def _place(ends: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """Return where numbers (R, 1) fall between cumulative sums (R, n), never on a part of size 0; and the numbers."""
    total = ends[:, -1:]
    below = torch.minimum(below, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(ends, below, right=True)  # right: the first sum that exceeds the number
    return place.clamp_(max=ends.shape[-1] - 1), below  # beyond all of them is nan, which a GPU must not index with


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one token per row of logits (R, V) by inverting the distribution function, at temperature 0 the likeliest.

    One number of ``uniform`` (R,), in [0, 1), serves a row. Returns the tokens (R,) and their log-probabilities (R,)
    under softmax(logits / temperature), fp32; at temperature 0 under softmax(logits).

    Example:
        >>> tokens, logprobs = sample(torch.tensor([[0.0, 50.0]]), 1.0, torch.tensor([0.5]))
        >>> tokens.tolist(), round(logprobs.item(), 3)
        ([1], -0.0)
    """
    scaled = logits.float()
    if temperature not in (0.0, 1.0):
        scaled = scaled / temperature
    probabilities = scaled.softmax(-1)
    if temperature == 0:
        tokens = scaled.argmax(-1)
    else:
        # a block first, and then a token of it: sums over the whole vocabulary would be the slowest part of sampling
        blocks = F.pad(probabilities, (0, -probabilities.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
        ends = blocks.sum(-1).cumsum(-1)
        block, below = _place(ends, uniform[:, None] * ends[:, -1:])
        start = F.pad(ends, (1, 0)).gather(-1, block)
        inside = blocks.take_along_dim(block[..., None], dim=1)[:, 0].cumsum(-1)
        token, _ = _place(inside, below - start)
        tokens = (block * BLOCK + token)[:, 0].clamp_(max=probabilities.shape[-1] - 1)
    return tokens, probabilities.gather(-1, tokens[:, None])[:, 0].log()
