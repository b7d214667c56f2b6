"""Attention from branches to their trunk and to themselves, two ways: as products anyone can follow, and fused.

    scores = [ q . K_trunk  where trunk index < pos | q . K_own  where own index <= mine ],  one softmax over both

All branches of a document share K_trunk, so that part is one large product (as Hydragen does). ``branch_attention``
runs on every device and dtype. ``fused_branch_attention`` is for training on a CPU: PyTorch's fused kernel attends to
trunk and branch separately and returns with each the log of its softmax's denominator, l. They merge exactly:

    out = out_trunk exp(l_trunk - l) + out_own exp(l_own - l),  l = log(exp(l_trunk) + exp(l_own))

and the kernel's backward pass, given the merged out and l, gives each part's share of the joint gradient (as in ring
attention), so no score is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def tree_mask(trunk_tokens: int, branches: Sequence[tuple[int, int]]) -> Tensor:
    """Return the dense mask of a trunk and its branches, (S, S) bool, rows are queries; for lessons and tests only.

    ``branches`` gives the index and the length of each.

    Example:
        >>> tree_mask(3, [(2, 2)]).int()  # a branch of two tokens at index 2
        tensor([[1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0],
                [1, 1, 0, 1, 0],
                [1, 1, 0, 1, 1]], dtype=torch.int32)
    """
    lengths = (trunk_tokens, *(length for _, length in branches))
    mask = torch.block_diag(*(torch.ones(length, length).tril() for length in lengths))
    start = trunk_tokens
    for index, length in branches:
        mask[start : start + length, :index] = 1
        start += length
    seen: Tensor = mask.bool()
    return seen


def branch_attention(
    query: Tensor,  # (N, R, H, C, D), C new tokens of each branch
    trunk_key: Tensor,  # (N, H_kv, T, D); H must be a multiple of H_kv (grouped-query attention)
    trunk_value: Tensor,
    own_key: Tensor,  # (N, R, H_kv, L, D), the branch's tokens so far, the new ones included
    own_value: Tensor,
    trunk_length: Tensor,  # (N, R), how many trunk tokens the branch sees
    own_length: Tensor,  # (N, R, C), how many of its own tokens each new token sees, itself included
    scaling: float,  # factor on the dot products
) -> Tensor:
    """Attend from R branches of each of N trunks to their trunk and to themselves, under one softmax; like ``query``.

    Example:
        >>> q = torch.zeros(1, 1, 1, 1, 2); v = torch.tensor([[[[0., 3.], [6., 0.], [9., 9.]]]])
        >>> own = torch.zeros(1, 1, 1, 1, 2)
        >>> branch_attention(q, torch.zeros_like(v), v, own, own, torch.tensor([[2]]), torch.tensor([[[1]]]), 1.0)
        tensor([[[[[2., 1.]]]]])
    """
    trunks, rows, heads, new, dim = query.shape
    kv_heads, trunk_tokens, own_tokens = *trunk_key.shape[1:3], own_key.shape[3]
    width = heads // kv_heads * new  # queries of one branch that share a key head
    folded = (query * scaling).reshape(trunks, rows, kv_heads, width, dim)
    by_head = folded.transpose(1, 2).reshape(trunks * kv_heads, rows * width, dim)
    trunk_scores = torch.bmm(by_head, trunk_key.flatten(0, 1).transpose(1, 2))
    own_scores = torch.bmm(folded.flatten(0, 2), own_key.flatten(0, 2).transpose(1, 2))
    by_row = trunk_scores.view(trunks, kv_heads, rows, width, trunk_tokens).transpose(1, 2)
    scores = torch.cat([by_row, own_scores.view(trunks, rows, kv_heads, width, own_tokens)], dim=-1)
    trunk_seen, own_seen = _seen(trunk_tokens, trunk_length), _seen(own_tokens, own_length)  # (N, R, T), (N, R, C, L)
    seen = torch.cat([trunk_seen[:, :, None].expand(-1, -1, new, -1), own_seen], dim=-1)
    scores = scores.view(trunks, rows, heads, new, -1)  # (H_kv, H / H_kv, C) is (H, C)
    scores = scores.masked_fill(~seen[:, :, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).view(trunks, rows, kv_heads, width, -1)  # a low-precision softmax sums in fp32
    trunk_weights, own_weights = weights.split([trunk_tokens, own_tokens], dim=-1)
    by_head = trunk_weights.transpose(1, 2).reshape(trunks * kv_heads, rows * width, trunk_tokens)
    from_trunk = torch.bmm(by_head, trunk_value.flatten(0, 1))
    from_own = torch.bmm(own_weights.reshape(-1, width, own_tokens), own_value.flatten(0, 2))
    mixed = from_trunk.view(trunks, kv_heads, rows, width, dim).transpose(1, 2) + from_own.view_as(folded)
    return mixed.reshape(trunks, rows, heads, new, dim)


def fused_branch_attention(*inputs: Tensor | float) -> Tensor:
    """Compute ``branch_attention`` by the fused CPU kernel; a branch must see at least one token of its trunk."""
    merged: Tensor = _Fused.apply(*inputs)  # type: ignore[no-untyped-call]
    return merged


def _seen(tokens: int, length: Tensor) -> Tensor:
    """Which of ``tokens`` keys lie below each length, (*length.shape, tokens)."""
    return torch.arange(tokens, device=length.device) < length[..., None]


def _added(seen: Tensor, like: Tensor) -> Tensor:
    """Return what the kernel adds to scores: 0 where a key is seen, -inf where not."""
    return like.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)


def _by_trunk(rows: Tensor) -> Tensor:
    """Lay (N, R, H_kv, width, ...) out as (N, H_kv, R * width, ...): all branches of a trunk side by side."""
    side_by_side: Tensor = rows.transpose(1, 2).flatten(2, 3)
    return side_by_side.contiguous()


class _Fused(torch.autograd.Function):
    """Two runs of the kernel, merged."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        trunk_key: Tensor,
        trunk_value: Tensor,
        own_key: Tensor,
        own_value: Tensor,
        trunk_length: Tensor,
        own_length: Tensor,
        scaling: float,
    ) -> Tensor:
        ctx.shape = query.shape
        trunks, rows, heads, new, _ = query.shape
        kv_heads, trunk_tokens = trunk_key.shape[1:3]
        shared, width = heads // kv_heads, heads // kv_heads * new  # query heads, and queries, on one key head
        query = query.reshape(trunks, rows, kv_heads, width, -1)
        seen = _seen(trunk_tokens, trunk_length).repeat_interleave(width, dim=1)[:, None]
        trunk_mask = _added(seen, query)  # (N, 1, R * width, T)
        seen = _seen(own_key.shape[3], own_length).flatten(0, 1).repeat(1, shared, 1)[:, None]
        own_mask = _added(seen, query)  # (N * R, 1, width, L)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        from_trunk, trunk_log = kernel(_by_trunk(query), trunk_key, trunk_value, attn_mask=trunk_mask, scale=scaling)
        own = (part.flatten(0, 1) for part in (query, own_key, own_value))
        from_own, own_log = kernel(*own, attn_mask=own_mask, scale=scaling)
        trunk_log = trunk_log.reshape(trunks, kv_heads, rows, width).transpose(1, 2)
        own_log = own_log.reshape(trunks, rows, kv_heads, width)
        log = torch.logaddexp(trunk_log, own_log)
        from_trunk = from_trunk.reshape(trunks, kv_heads, rows, width, -1).transpose(1, 2)
        summed = from_trunk * (trunk_log - log).exp()[..., None]
        summed = summed + from_own.reshape(query.shape) * (own_log - log).exp()[..., None]
        merged: Tensor = summed.to(query.dtype)
        ctx.save_for_backward(query, trunk_key, trunk_value, own_key, own_value, merged, log, trunk_mask, own_mask)
        ctx.scaling = scaling
        return merged.reshape(ctx.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, trunk_key, trunk_value, own_key, own_value, merged, log, trunk_mask, own_mask = ctx.saved_tensors
        trunks, rows, kv_heads, width, dim = query.shape
        gradient = gradient.reshape(query.shape)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        by_trunk = (_by_trunk(gradient), _by_trunk(query), trunk_key, trunk_value, _by_trunk(merged), _by_trunk(log))
        to_query, *to_trunk = kernel(*by_trunk, 0.0, False, attn_mask=trunk_mask, scale=ctx.scaling)
        own = (part.flatten(0, 1) for part in (gradient.contiguous(), query, own_key, own_value, merged, log))
        to_query_too, *to_own = kernel(*own, 0.0, False, attn_mask=own_mask, scale=ctx.scaling)
        to_query = to_query.reshape(trunks, kv_heads, rows, width, dim).transpose(1, 2)
        to_query = (to_query + to_query_too.reshape(query.shape)).reshape(ctx.shape)
        return to_query, *to_trunk, *(part.reshape(own_key.shape) for part in to_own), None, None, None
