"""The same tree the plain way: every branch is read with its whole prefix, every time.

Slow and simple. ``load_policy`` falls back on it, with a warning, where a model's attention does not go through
transformers' interface or follows another rule (a sliding window, say), so that the tree would compute something else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.engine.tree import DocumentTree, Trunks

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


def _windowed(config: Any) -> bool:
    """Tell whether a layer sees only some of what stands before a token; a few tokens would not show it."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    return kinds != {"full_attention"} if kinds else getattr(text, "sliding_window", None) is not None


@torch.no_grad()
def choose_tree(model: Any) -> DocumentTree | PlainTree:
    """Return the document tree if it gives what the plain path gives on a few tokens, else the plain path."""
    tree, plain = DocumentTree(model), PlainTree(model)
    device = model.get_input_embeddings().weight.device
    ids = [torch.arange(11, device=device) % 7, torch.arange(9, device=device) % 5]
    trunk, index = torch.tensor([0, 0, 1], device=device), torch.tensor([4, 11, 5], device=device)
    rows = [torch.arange(length, device=device) % 3 for length in (3, 5, 4)]
    try:
        read, expected = tree.read(ids), plain.read(ids)
        grown = tree.branches(read, trunk, index, 3)
        with torch.enable_grad():
            trained = tree.whole(read, trunk, index, rows).detach()
        ours = [
            torch.cat(list(read.hidden)),
            trained,
            tree.grow(grown, torch.arange(3), torch.stack([row[:3] for row in rows])),
        ]
        whole = plain.whole(expected, trunk, index, rows)
        theirs = [torch.cat(list(expected.hidden)), whole, whole[[2, 5, 10]]]
        gap = max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))
        reason = f"hidden states differ by {gap:.1%} of their size"
        # bfloat16 keeps 8 bits, and rounding differs between orders of summation
        agrees = gap <= (0.1 if whole.dtype == torch.bfloat16 else 1e-3)
    except Exception as error:  # whatever an unknown architecture raises, the plain path still serves it
        agrees, reason = False, f"{type(error).__name__}: {error}"
    if _windowed(model.config):
        agrees, reason = False, "not every layer attends to all tokens before"
    if agrees:
        return tree
    logger.warning("The document tree does not fit %s (%s); using the slow plain path.", type(model).__name__, reason)
    return plain
