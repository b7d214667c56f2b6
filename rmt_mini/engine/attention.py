"""Attention from branches to their trunk and to themselves, two ways: as products anyone can follow, and fused.

    scores = [ q . K_trunk  where trunk index < pos | q . K_own  where own index <= mine ],  one softmax over both

All branches of a document share K_trunk, so that part is one large product (as Hydragen does). ``branch_attention``
does that, on every device. ``fused_branch_attention``, for training, is PyTorch's fused kernel, which stores no scores;
it gets the trunk's keys once for every branch. In bfloat16 on a CPU it was slower at every prefix, as was the kernel
run on trunk and branch apart and merged by the logs of its softmax's denominators.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]  # keys and values


def tree_mask(trunk_tokens: int, branches: Sequence[tuple[int, int]]) -> Tensor:
    """Return the mask (S, S), rows are queries, of a trunk and branches (index, length); for lessons and tests only.

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


def seen_by(
    trunk_tokens: int,  # T
    own_tokens: int,  # L
    trunk_length: Tensor,  # (N, R), how many trunk tokens each branch sees
    own_length: Tensor,  # (N, R, C), how many of its own tokens each new token sees, itself included
) -> Tensor:
    """Which keys, those of the trunk and then the branch's own, each new token sees, (N, R, C, T + L) bool.

    Example:
        >>> seen_by(3, 2, torch.tensor([[2]]), torch.tensor([[[1, 2]]])).int()
        tensor([[[[1, 1, 0, 1, 0],
                  [1, 1, 0, 1, 1]]]], dtype=torch.int32)
    """
    of_trunk, of_own = (torch.arange(tokens, device=own_length.device) for tokens in (trunk_tokens, own_tokens))
    trunk_seen = (of_trunk < trunk_length[..., None])[:, :, None].expand(-1, -1, own_length.shape[2], -1)
    return torch.cat([trunk_seen, of_own < own_length[..., None]], dim=-1)


def branch_attention(
    query: Tensor,  # (N, R, H, C, D), C new tokens of each branch
    trunk: Pair,  # (N, H_kv, T, D) each; H must be a multiple of H_kv (grouped-query attention)
    own: Pair,  # (N, R, H_kv, L, D) each, of the branch's tokens so far, the new ones included
    seen: Tensor,  # of ``seen_by``
    scaling: float,  # factor on the dot products
) -> Tensor:
    """Attend from R branches of each of N trunks to their trunk and to themselves, under one softmax; like ``query``.

    Example:
        >>> q = torch.zeros(1, 1, 1, 1, 2); v = torch.tensor([[[[0., 3.], [6., 0.], [9., 9.]]]])
        >>> seen = seen_by(3, 1, torch.tensor([[2]]), torch.tensor([[[1]]]))
        >>> branch_attention(q, (torch.zeros_like(v), v), (q, q), seen, 1.0)
        tensor([[[[[2., 1.]]]]])
    """
    (trunk_key, trunk_value), (own_key, own_value) = trunk, own
    trunks, rows, heads, new, dim = query.shape
    kv_heads, trunk_tokens, own_tokens = *trunk_key.shape[1:3], own_key.shape[3]
    width = heads // kv_heads * new  # queries of one branch that share a key head
    folded = (query * scaling).reshape(trunks, rows, kv_heads, width, dim)
    by_head = folded.transpose(1, 2).reshape(trunks * kv_heads, rows * width, dim)
    trunk_scores = torch.bmm(by_head, trunk_key.flatten(0, 1).transpose(1, 2))
    own_scores = torch.bmm(folded.flatten(0, 2), own_key.flatten(0, 2).transpose(1, 2))
    by_row = trunk_scores.view(trunks, kv_heads, rows, width, trunk_tokens).transpose(1, 2)
    scores = torch.cat([by_row, own_scores.view(trunks, rows, kv_heads, width, own_tokens)], dim=-1)
    scores = scores.view(trunks, rows, heads, new, -1)  # (H_kv, H / H_kv, C) is (H, C)
    scores = scores.masked_fill_(~seen[:, :, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).view(trunks, rows, kv_heads, width, -1)  # a low-precision softmax sums in fp32
    trunk_weights, own_weights = weights.split([trunk_tokens, own_tokens], dim=-1)
    by_head = trunk_weights.transpose(1, 2).reshape(trunks * kv_heads, rows * width, trunk_tokens)
    from_trunk = torch.bmm(by_head, trunk_value.flatten(0, 1))
    from_own = torch.bmm(own_weights.reshape(-1, width, own_tokens), own_value.flatten(0, 2))
    mixed = from_trunk.view(trunks, kv_heads, rows, width, dim).transpose(1, 2) + from_own.view_as(folded)
    return mixed.reshape(trunks, rows, heads, new, dim)


def fused_branch_attention(query: Tensor, trunk: Pair, own: Pair, seen: Tensor, scaling: float) -> Tensor:
    """Compute ``branch_attention`` by PyTorch's fused kernel, a branch a row of its batch."""
    trunks, rows, heads, _, dim = query.shape
    key, value = (
        torch.cat([shared[:, None].expand(-1, rows, -1, -1, -1), new], dim=3).flatten(0, 1)
        for shared, new in zip(trunk, own, strict=True)
    )
    kv_heads = key.shape[1]
    # query heads that share a key head become queries of it: with enable_gqa a mask would rule out the fused kernel
    mask = seen.flatten(0, 1).repeat(1, heads // kv_heads, 1)[:, None]
    folded = query.reshape(trunks * rows, kv_heads, -1, dim)
    return F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling).reshape(query.shape)
