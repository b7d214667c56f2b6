"""The same tree the plain way: every branch is read with its whole prefix, every time. Slow and simple.

``load_policy`` falls back on it, with a warning, where a model's attention does not go through transformers' interface
or follows another rule (a sliding window, say).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rmt_mini.engine.layers import LlamaLayers
from rmt_mini.engine.tree import Documents, DocumentTree, Trunks, backward_through_trunk
from rmt_mini.errors import logger, out_of_memory
from rmt_mini.records import Position


class PlainBranches:
    """R branches as plain token lists."""

    def __init__(self, trunks: Trunks, positions: Sequence[Position]) -> None:
        self.trunks, self.positions = trunks, positions
        self.tokens: list[list[int]] = [[] for _ in positions]

    def take(self, rows: Tensor) -> "PlainBranches":
        """Return copies of ``rows``, which grow on their own from here."""
        taken = PlainBranches(self.trunks, [self.positions[row] for row in rows.tolist()])
        taken.tokens = [list(self.tokens[row]) for row in rows.tolist()]
        return taken

    def put(self, rows: Tensor, grown: "PlainBranches") -> None:
        """Let ``rows`` be as they grew elsewhere."""
        for row, tokens in zip(rows.tolist(), grown.tokens, strict=True):
            self.tokens[row] = tokens


class PlainTree:
    """Twin of ``DocumentTree`` without any sharing."""

    def __init__(self, model: Any) -> None:
        self.decoder = model.get_decoder()

    def _run(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.decoder(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        return hidden

    def _run_branch(self, trunks: Trunks, position: Position, tokens: Sequence[int]) -> Tensor:
        ids = [*trunks.documents[position.trunk][: position.index], *tokens]
        return self._run(torch.tensor(ids, device=trunks.ids[0].device))

    def read(self, documents: Documents) -> Trunks:
        """Read N documents, one after another."""
        trunks = Trunks.of(documents, self.decoder.device)
        trunks.hidden = [self._run(ids) for ids in trunks.ids]
        return trunks

    def sampling(self) -> AbstractContextManager[None]:
        """Return a context for sampling."""
        return nullcontext()

    def branches(self, trunks: Trunks, positions: Sequence[Position], capacity: int) -> PlainBranches:
        """Start an empty branch at each position."""
        return PlainBranches(trunks, positions)

    @torch.no_grad()
    def grow(self, branches: PlainBranches, rows: Tensor, tokens: Tensor, counts: Tensor | None = None) -> Tensor:
        """Append ``counts`` of tokens (rows, C), by default all; returns each one's last hidden state (rows, d)."""
        last = []
        kept = [tokens.shape[1]] * len(rows) if counts is None else counts.tolist()
        for row, new, count in zip(rows.tolist(), tokens.tolist(), kept, strict=True):
            branches.tokens[row] += new[:count]
            last.append(self._run_branch(branches.trunks, branches.positions[row], branches.tokens[row])[-1])
        return torch.stack(last)

    def whole(self, trunks: Trunks, positions: Sequence[Position], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states of whole branches, packed: (sum of lengths, d)."""
        rows = zip(positions, tokens, strict=True)
        return torch.cat([self._run_branch(trunks, position, row)[position.index :] for position, row in rows])


def gap(one: Tensor, other: Tensor) -> float:
    """Return how far two tensors differ, as a share of the second one's size."""
    return float((one - other).norm() / other.norm())


def _tried(tree: Any, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return a tree's hidden states of a few tokens, and a loss's gradient on ``weight``, the input embedding."""
    device = weight.device
    documents = [[n % 7 for n in range(11)], [n % 5 for n in range(9)]]
    positions = [Position(trunk, index, 0, 0.0) for trunk, index in ((0, 4), (0, 11), (1, 5))]
    rows = [[n % 3 for n in range(length)] for length in (3, 5, 4)]
    with torch.enable_grad():
        read = tree.read(documents)
        leaves = read.detached()
        whole = tree.whole(leaves, positions, rows)
        hidden = torch.cat(list(read.hidden))
        # a plain sum would be zero after a norm that takes out the mean
        slope = torch.linspace(-1, 1, hidden.shape[-1], device=device, dtype=hidden.dtype)
        (whole * slope).sum().backward()
        backward_through_trunk(read, leaves, (hidden * slope).sum())
    gradient, weight.grad = weight.grad, None
    assert gradient is not None
    with torch.no_grad():
        new = torch.tensor([row[:3] for row in rows], device=device)
        branches = tree.branches(tree.read(documents), positions, 3)
        with tree.sampling():
            grown = tree.grow(branches, torch.arange(3), new)
    return [hidden.detach(), whole.detach(), grown], gradient


def choose_tree(model: Any) -> DocumentTree | PlainTree:
    """Return the fastest tree whose states and gradients are the plain path's on a few tokens."""
    plain = PlainTree(model)
    weight = model.get_input_embeddings().weight
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradient_before, weight.grad = weight.grad, None
    model.requires_grad_(False)
    weight.requires_grad_(True)
    reason = ""
    try:
        expected, expected_gradient = _tried(plain, weight)
        for layers in (LlamaLayers, lambda _: None):  # our own, and then transformers'
            try:
                tree = DocumentTree(model, layers(model))
                found, gradient = _tried(tree, weight)
                states, slope = max(map(gap, found, expected)), gap(gradient, expected_gradient)
                reason = f"hidden states differ by {states:.1%} of their size and gradients differ by {slope:.1%}"
                # bfloat16 keeps 8 bits, and rounding differs between orders of summation
                if max(states, slope) <= (0.2 if weight.dtype == torch.bfloat16 else 1e-3):
                    reason = ""
                    break
            except Exception as error:  # an unknown architecture may raise any error; the plain path still serves it
                if out_of_memory(error):
                    raise
                reason = f"{type(error).__name__}: {error}"
    finally:
        weight.grad = gradient_before
        weight.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if kinds - {"full_attention"} or (not kinds and getattr(text, "sliding_window", None) is not None):
        reason = "not every layer attends to all tokens before"  # a few tokens would not show it
    rope = getattr(text, "rope_parameters", None) or {}
    if {"dynamic", "longrope"} & {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}:
        reason = "its rotary embeddings depend on the longest row of a call"
    if not reason:
        return tree
    logger.warning("The document tree does not fit %s (%s); using the slow plain path.", type(model).__name__, reason)
    return plain
