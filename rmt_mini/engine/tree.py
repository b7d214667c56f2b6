"""The document tree: one trunk, many branches, nothing computed twice.

All positions of a document share the document's prefix, and all rollouts of a position the position's. So the document
is read once as a *trunk*; thoughts grow off it as *branches*:

    trunk    t0 t1 t2 ... t_pos ...                        next-token loss, entropies, keys and values
    branch   at pos: opening thought closing cue answer    sees trunk tokens before pos, and itself so far;
                                                           position ids restart at pos

Training splits at the trunk's keys and values: chunks of branches run forward and backward one after another and leave
their gradients on detached copies; the trunk goes backward once, at the end, with their sum.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from rmt_mini.engine.attention import branch_attention, fused_branch_attention
from rmt_mini.records import Position

IMPLEMENTATION = "rmt_tree"
Documents = Sequence[Sequence[int]] | Mapping[int, Sequence[int]]


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, **kwargs: Any
) -> tuple[Tensor, None]:
    """Pass one layer's queries, keys and values, each (1, heads, tokens, D), to the pass that is running."""
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    attended = kwargs["tree_pass"].attend(module.layer_idx, query[0], key[0], value[0], scaling)  # (tokens, H, D)
    return attended[None], None


AttentionInterface.register(IMPLEMENTATION, _attention)


@dataclass
class Trunks:
    """N documents read once: their hidden states and every layer's keys and values."""

    documents: Mapping[int, tuple[int, ...]]  # their tokens, by the number that ``Position.trunk`` gives each
    ids: Sequence[Tensor]  # the same, N tensors (T_n,)
    hidden: Sequence[Tensor] = ()  # N tensors (T_n, d), after the final norm; hidden[n][i - 1] predicts token i
    keys: list[Tensor] = field(default_factory=list)  # by layer, (N, H_kv, T, D), padded to the longest document
    values: list[Tensor] = field(default_factory=list)  # the same shapes

    @classmethod
    def of(cls, documents: Documents, device: torch.device) -> Trunks:
        """Return documents before they are read, numbered from 0 where they are no mapping."""
        numbered = documents if isinstance(documents, Mapping) else dict(enumerate(documents))
        if not numbered or any(len(document) == 0 for document in numbered.values()):
            raise ValueError("read needs at least one document, and each at least one token")
        kept = {number: tuple(map(int, document)) for number, document in numbered.items()}
        return cls(kept, [torch.tensor(document, device=device) for document in kept.values()])

    def rows(self, positions: Sequence[Position]) -> list[int]:
        """Return which of the N documents each position is in."""
        row = {number: place for place, number in enumerate(self.documents)}
        return [row[position.trunk] for position in positions]

    def before(self, positions: Sequence[Position]) -> Tensor:
        """Return the hidden states that predict the tokens at some positions, (P, d)."""
        rows = self.rows(positions)
        return torch.stack([self.hidden[row][one.index - 1] for row, one in zip(rows, positions, strict=True)])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Causal attention inside each document; keeps the keys and values for the branches."""
        sizes = [len(ids) for ids in self.ids]
        keys, values = key.split(sizes, dim=1), value.split(sizes, dim=1)
        attended = [
            F.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=True, scale=scaling, enable_gqa=q.shape[0] != k.shape[0]
            )[0]
            for q, k, v in zip(query.split(sizes, dim=1), keys, values, strict=True)
        ]
        for kept, parts in ((self.keys, keys), (self.values, values)):
            kept.append(torch.stack([F.pad(part, (0, 0, 0, max(sizes) - part.shape[1])) for part in parts]))
        return torch.cat(attended, dim=1).transpose(0, 1)

    def detached(self) -> Trunks:
        """Copy whose keys and values are leaves that collect the branches' gradients."""
        keys, values = ([tensor.detach().requires_grad_() for tensor in kept] for kept in (self.keys, self.values))
        return replace(self, keys=keys, values=values)


def backward_through_trunk(trunks: Trunks, leaves: Trunks, loss: Tensor | None) -> None:
    """Send the branches' gradients, collected on ``leaves``, and ``loss`` back through the trunk in one pass."""
    pairs = [*zip(trunks.keys, leaves.keys, strict=True), *zip(trunks.values, leaves.values, strict=True)]
    fed = [(tensor, leaf.grad) for tensor, leaf in pairs if leaf.grad is not None]
    roots = [tensor for tensor, _ in fed] + ([] if loss is None else [loss])
    gradients = [gradient for _, gradient in fed] + ([] if loss is None else [None])
    if roots:
        torch.autograd.backward(roots, gradients)


def _located(trunks: Trunks, positions: Sequence[Position]) -> tuple[Tensor, Tensor]:
    """Document and index of R branches, (R,) each, on the CPU."""
    rows = trunks.rows(positions)
    if rows != sorted(rows):
        raise ValueError("trunk must be ascending: sort the branches by document")
    return torch.tensor(rows), torch.tensor([position.index for position in positions])


class _ByTrunk:
    """Arrange R rows, sorted by document, as (N, rows of the fullest document); pads repeat a row.

    Keys and values may be ``stored`` among those of other rows: their places there, (R,).
    """

    def __init__(self, trunk: Tensor, index: Tensor, device: torch.device, stored: Tensor | None = None) -> None:
        used, counts = torch.unique_consecutive(trunk, return_counts=True)  # documents that have rows
        starts, most = counts.cumsum(0) - counts, int(counts.max())
        rows = starts[:, None] + torch.arange(most).minimum(counts[:, None] - 1)  # (N, most) -> row
        document = torch.repeat_interleave(torch.arange(len(counts)), counts)
        slot = document * most + torch.arange(len(trunk)) - starts[document]  # row -> place
        self.even = rows.numel() == len(trunk)  # every document has as many rows: views serve, nothing is copied
        self.longest = int(index.max())  # no branch sees further
        self.alone = self.even and stored is None  # no others are stored beside them
        places = rows if stored is None else stored[rows]
        parts = (used, rows, places, slot, index[rows])
        self.used, self.rows, self.places, self.slot, self.seen = (part.to(device) for part in parts)

    def attend(
        self, trunks: Trunks, layer: int, query: Tensor, key: Tensor, value: Tensor, own: Tensor, scaling: float
    ) -> Tensor:
        """Run branch_attention on rows: query (R, H, C, D), key and value (stored, H_kv, L, D), to (R, H, C, D)."""
        trunk_key, trunk_value = (kept[layer][:, :, : self.longest] for kept in (trunks.keys, trunks.values))
        if len(self.used) < len(trunk_key):
            trunk_key, trunk_value = trunk_key[self.used], trunk_value[self.used]
        shape = self.rows.shape
        query, own = (part.view(*shape, *part.shape[1:]) if self.even else part[self.rows] for part in (query, own))
        key, value = (part.view(*shape, *part.shape[1:]) if self.alone else part[self.places] for part in (key, value))
        inputs = (query, trunk_key, trunk_value, key, value, self.seen, own, scaling)
        if not torch.is_grad_enabled():
            grouped = branch_attention(*inputs)
        elif query.device.type == "cpu":
            grouped = fused_branch_attention(*inputs)
        else:
            # scores are recomputed in the backward pass: kept, they would cost memory that grows with the prefix
            grouped = checkpoint(branch_attention, *inputs, use_reentrant=False, preserve_rng_state=False)
        return grouped.flatten(0, 1) if self.even else grouped.flatten(0, 1)[self.slot]


class _WholeBranches:
    """Training pass: R branches of unequal length are read whole, packed one after another without padding."""

    def __init__(self, trunks: Trunks, positions: Sequence[Position], lengths: Tensor, device: torch.device) -> None:
        trunk, index = _located(trunks, positions)
        self.trunks, self.by_trunk = trunks, _ByTrunk(trunk, index, device)
        row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # packed place -> row
        column = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]  # packed place -> place in its row
        width = int(lengths.max())
        self.slot = (row * width + column).to(device)  # packed place -> place in the rectangle of rows
        self.position_ids = (index[row] + column).to(device)
        self.own_length = torch.arange(1, width + 1, device=device).expand(len(lengths), -1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        query, key, value = (self._to_rectangle(packed.transpose(0, 1)) for packed in (query, key, value))
        attended = self.by_trunk.attend(self.trunks, layer, query, key, value, self.own_length, scaling)
        return attended.transpose(1, 2).flatten(0, 1).index_select(0, self.slot)

    def _to_rectangle(self, packed: Tensor) -> Tensor:
        """Spread packed tokens (tokens, H, D) over rows (R, H, L, D); pads are zeros, which nothing sees."""
        rows, width = self.own_length.shape
        spread = packed.new_zeros(rows * width, *packed.shape[1:]).index_copy(0, self.slot, packed)
        return spread.view(rows, width, *packed.shape[1:]).transpose(1, 2)


class GrowingBranches:
    """Sampling pass: R branches, of at most ``capacity`` tokens, that grow a few tokens at a time."""

    def __init__(self, trunks: Trunks, positions: Sequence[Position], capacity: int) -> None:
        self.trunks = trunks
        self.trunk, self.index = _located(trunks, positions)
        self.lengths = torch.zeros_like(self.index)  # (R,) own tokens so far
        _, kv_heads, _, dim = trunks.keys[0].shape
        self.keys = trunks.keys[0].new_zeros(len(trunks.keys), len(positions), kv_heads, capacity, dim)
        self.values = torch.zeros_like(self.keys)

    def fork(self, copies: int) -> GrowingBranches:
        """Return ``copies`` branches in place of each, side by side, that share what was read so far."""
        forked = copy.copy(self)
        for name, dim in (("trunk", 0), ("index", 0), ("lengths", 0), ("keys", 1), ("values", 1)):
            setattr(forked, name, getattr(self, name).repeat_interleave(copies, dim=dim))
        return forked

    def forget(self, rows: Tensor, counts: Tensor) -> None:
        """Take back the last ``counts`` tokens of ``rows``; what grows next is written over them."""
        self.lengths[rows] -= counts

    def aim(self, rows: Tensor, new: int) -> Tensor:
        """Prepare for ``new`` tokens on each of ``rows`` (ascending); returns their position ids (rows, new)."""
        device, columns = self.keys.device, self.lengths[rows, None] + torch.arange(new)
        self.reach = int(columns.max()) + 1
        if self.reach > self.keys.shape[3]:
            raise ValueError(f"branches of {self.reach} tokens do not fit the capacity {self.keys.shape[3]}")
        self.lengths[rows] += new
        stored = None if len(rows) == len(self.index) else rows
        self.rows, self.columns = rows.to(device), columns.to(device)
        self.by_trunk = _ByTrunk(self.trunk[rows], self.index[rows], device, stored)
        return (self.index[rows, None] + columns).to(device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the new keys and values of the rows aimed at, and attend from them."""
        count, new = self.columns.shape
        query, key, value = (
            packed.view(packed.shape[0], count, new, packed.shape[-1]).transpose(0, 1) for packed in (query, key, value)
        )
        keys, values = self.keys[layer], self.values[layer]
        keys[self.rows[:, None], :, self.columns] = key.transpose(1, 2)
        values[self.rows[:, None], :, self.columns] = value.transpose(1, 2)
        keys, values = keys[:, :, : self.reach], values[:, :, : self.reach]
        attended = self.by_trunk.attend(self.trunks, layer, query, keys, values, self.columns + 1, scaling)
        return attended.transpose(1, 2).flatten(0, 1)


class DocumentTree:
    """Run a transformers causal LM, whose attention goes through ``AttentionInterface``, over trunks and branches."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.decoder = model.get_decoder()

    def _run(self, tokens: Tensor, position_ids: Tensor, tree_pass: object) -> Tensor:
        inputs = {"input_ids": tokens[None], "position_ids": position_ids[None], "use_cache": False}
        config, before = self.model.config, self.model.config._attn_implementation
        config._attn_implementation = IMPLEMENTATION  # for this call only: outside it is an ordinary model
        try:
            hidden: Tensor = self.decoder(**inputs, tree_pass=tree_pass).last_hidden_state[0]
        finally:
            config._attn_implementation = before
        return hidden

    def read(self, documents: Documents) -> Trunks:
        """Read N documents in one pass; under autograd the graph is kept for ``backward_through_trunk``."""
        trunks = Trunks.of(documents, self.model.device)
        positions = torch.cat([torch.arange(len(ids), device=ids.device) for ids in trunks.ids])
        hidden = self._run(torch.cat(list(trunks.ids)), positions, trunks)
        trunks.hidden = hidden.split([len(ids) for ids in trunks.ids])
        return trunks

    def branches(self, trunks: Trunks, positions: Sequence[Position], capacity: int) -> GrowingBranches:
        """Start a branch of at most ``capacity`` tokens at each position, sorted by trunk."""
        return GrowingBranches(trunks, positions, capacity)

    @torch.no_grad()
    def grow(self, branches: GrowingBranches, rows: Tensor, tokens: Tensor) -> Tensor:
        """Append tokens (rows, C), on the device, to some branches; returns each one's last hidden state (rows, d)."""
        positions = branches.aim(rows, tokens.shape[1])
        hidden = self._run(tokens.flatten(), positions.flatten(), branches)
        return hidden.view(*tokens.shape, -1)[:, -1]

    def whole(self, trunks: Trunks, positions: Sequence[Position], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states of whole branches, packed: (sum of lengths, d). Positions are sorted by trunk."""
        device = trunks.ids[0].device
        lengths = torch.tensor([len(row) for row in tokens])
        branches = _WholeBranches(trunks, positions, lengths, device)
        packed = torch.tensor([token for row in tokens for token in row], device=device)
        return self._run(packed, branches.position_ids, branches)
