"""The same tree the plain way: every branch is read with its whole prefix, every time. Slow and simple.

``load_policy`` falls back on it, with a warning, where a model's attention does not go through
transformers' interface or follows another rule (a sliding window, say), so that the tree would compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.engine.tree import DocumentTree, Trunks, backward_through_trunk

logger = logging.getLogger(__name__)


class PlainBranches:
    """R branches as plain token lists."""

    def __init__(self, trunks: Trunks, trunk: list[int], index: list[int]) -> None:
        self.trunks, self.trunk, self.index = trunks, trunk, index
        self.tokens: list[list[int]] = [[] for _ in trunk]

    def fork(self, copies: int) -> PlainBranches:
        """Return ``copies`` branches in place of each, side by side."""
        forked = PlainBranches(
            self.trunks, *([value for value in values for _ in range(copies)] for values in (self.trunk, self.index))
        )
        forked.tokens = [list(tokens) for tokens in self.tokens for _ in range(copies)]
        return forked

    def forget(self, rows: Tensor, counts: Tensor) -> None:
        """Take back the last ``counts`` tokens of ``rows``."""
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            del self.tokens[row][len(self.tokens[row]) - count :]


class PlainTree:
    """Twin of ``DocumentTree`` without any sharing."""

    def __init__(self, model: Any) -> None:
        self.decoder = model.get_decoder()

    def _run(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.decoder(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        return hidden

    def read(self, ids: Sequence[Tensor]) -> Trunks:
        """Read N documents, one after another."""
        return Trunks(ids, [self._run(document) for document in ids])

    def branches(self, trunks: Trunks, trunk: Tensor, index: Tensor, capacity: int) -> PlainBranches:
        """Start R empty branches."""
        return PlainBranches(trunks, trunk.tolist(), index.tolist())

    @torch.no_grad()
    def grow(self, branches: PlainBranches, rows: Tensor, tokens: Tensor) -> Tensor:
        """Append tokens (rows, C); returns the hidden state of each one's last token (rows, d)."""
        last = []
        for row, new in zip(rows.tolist(), tokens.tolist(), strict=True):
            branches.tokens[row] += new
            prefix = branches.trunks.ids[branches.trunk[row]][: branches.index[row]]
            last.append(self._run(torch.cat([prefix, prefix.new_tensor(branches.tokens[row])]))[-1])
        return torch.stack(last)

    def whole(self, trunks: Trunks, trunk: Tensor, index: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Hidden states of R whole branches, packed: (sum of lengths, d)."""
        return torch.cat(
            [
                self._run(torch.cat([trunks.ids[n][:at], row]))[at:]
                for n, at, row in zip(trunk.tolist(), index.tolist(), tokens, strict=True)
            ]
        )


def gap(one: Tensor, other: Tensor) -> float:
    """Return how far two tensors differ, as a share of the second one's size."""
    return float((one - other).norm() / other.norm())


def _windowed(config: Any) -> bool:
    """Whether a layer sees only some of the tokens before a token; a few tokens would not show it."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    return kinds != {"full_attention"} if kinds else getattr(text, "sliding_window", None) is not None


def _tried(tree: Any, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run a tree on a few tokens, as sampling and as training do.

    Returns:
        Hidden states of trunks, whole branches and grown branches; and the gradient that a loss on trunks and branches
        has on ``weight``, the input embedding, to which it comes through every layer.
    """
    device = weight.device
    ids = [torch.arange(11, device=device) % 7, torch.arange(9, device=device) % 5]
    trunk, index = torch.tensor([0, 0, 1], device=device), torch.tensor([4, 11, 5], device=device)
    rows = [torch.arange(length, device=device) % 3 for length in (3, 5, 4)]
    with torch.enable_grad():
        read = tree.read(ids)
        leaves = read.detached()
        branches = tree.whole(leaves, trunk, index, rows)
        hidden = torch.cat(list(read.hidden))
        # a plain sum would be zero after a norm that takes out the mean
        slope = torch.linspace(-1, 1, hidden.shape[-1], device=device, dtype=hidden.dtype)
        (branches * slope).sum().backward()
        backward_through_trunk(read, leaves, (hidden * slope).sum())
    gradient, weight.grad = weight.grad, None
    assert gradient is not None
    with torch.no_grad():
        read = tree.read(ids)
        grown = tree.grow(tree.branches(read, trunk, index, 3), torch.arange(3), torch.stack([row[:3] for row in rows]))
    return [hidden.detach(), branches.detach(), grown], gradient


def choose_tree(model: Any) -> DocumentTree | PlainTree:
    """Return the document tree if states and gradients are the plain path's on a few tokens, else the plain path."""
    tree, plain = DocumentTree(model), PlainTree(model)
    weight = model.get_input_embeddings().weight
    trained = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in trained:
            parameter.requires_grad_(False)
        weight.grad = None
        weight.requires_grad_(True)
        (ours, gradient), (theirs, expected) = _tried(tree, weight), _tried(plain, weight)
        states, slopes = max(map(gap, ours, theirs)), gap(gradient, expected)
        reason = f"hidden states differ by {states:.1%} of their size and gradients differ by {slopes:.1%}"
        # bfloat16 keeps 8 bits, and rounding differs between orders of summation
        agrees = max(states, slopes) <= (0.2 if weight.dtype == torch.bfloat16 else 1e-3)
    except Exception as error:  # an unknown architecture may raise any error; the plain path still serves it
        agrees, reason = False, f"{type(error).__name__}: {error}"
    finally:
        for parameter, trains, gradient_before in trained:
            parameter.requires_grad_(trains)
            parameter.grad = gradient_before
    if _windowed(model.config):
        agrees, reason = False, "not every layer attends to all tokens before"
    if agrees:
        return tree
    logger.warning("The document tree does not fit %s (%s); using the slow plain path.", type(model).__name__, reason)
    return plain
