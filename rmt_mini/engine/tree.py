"""The document tree: one trunk, many branches, nothing computed twice.

All positions of a document share the document's prefix, and all rollouts of a position the position's. So the document
is read once as a *trunk*; thoughts grow off it as *branches*:

    trunk    t0 t1 t2 ... t_pos ...                        next-token loss, entropies, keys and values
    branch   at pos: opening thought closing cue answer    sees trunk tokens before pos, and itself so far;
                                                           position ids restart at pos

Training splits at the trunk's keys and values: chunks of branches run forward and backward one after another and leave
their gradients on detached copies; the trunk goes backward once, at the end, with their sum.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from rmt_mini.engine.attention import Pair, branch_attention, fused_branch_attention, seen_by
from rmt_mini.engine.layers import LlamaLayers
from rmt_mini.records import Position

IMPLEMENTATION = "rmt_tree"
KEPT_PREFIX = 512  # tokens; scores against more, which would cost more memory than the rest, are computed twice
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
    def of(cls, documents: Documents, device: torch.device) -> Self:
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

    def detached(self) -> Self:
        """Copy whose keys and values are leaves that collect the branches' gradients."""
        keys, values = ([tensor.detach().requires_grad_() for tensor in kept] for kept in (self.keys, self.values))
        return replace(self, keys=keys, values=values)


def backward_through_trunk(trunks: Trunks, leaves: Trunks, loss: Tensor | None) -> None:
    """Send the branches' gradients, collected on ``leaves``, and ``loss`` back through the trunk in one pass."""
    pairs = [*zip(trunks.keys, leaves.keys, strict=True), *zip(trunks.values, leaves.values, strict=True)]
    fed = [(tensor, leaf.grad) for tensor, leaf in pairs if leaf.grad is not None]
    if loss is not None:
        fed.append((loss, loss.new_ones(())))
    if fed:
        roots, gradients = zip(*fed, strict=True)
        torch.autograd.backward(roots, gradients)


def _located(trunks: Trunks, positions: Sequence[Position]) -> tuple[Tensor, Tensor]:
    """Document and index of R branches, (R,) each, on the CPU."""
    rows = trunks.rows(positions)
    if rows != sorted(rows):
        raise ValueError("trunk must be ascending: sort the branches by document")
    return torch.tensor(rows), torch.tensor([position.index for position in positions])


class _Rectangle:
    """R rows, sorted by document, as N x M slots: M for a document, or for a part of one that has more rows than most.

    So branches of a document meet its keys in one product. A slot without a row repeats one.
    """

    def __init__(self, trunks: Trunks, trunk: Tensor, index: Tensor) -> None:
        used, counts = torch.unique_consecutive(trunk, return_counts=True)
        document = torch.repeat_interleave(torch.arange(len(counts)), counts)
        most = -(-len(trunk) // len(counts))
        parts = -(-counts // most)
        self.shape, self.slots = (int(parts.sum()), most), int(parts.sum()) * most
        first = counts.cumsum(0) - counts
        self.slot = ((parts.cumsum(0) - parts) * most - first)[document] + torch.arange(len(trunk))  # (R,)
        self.row = first.repeat_interleave(parts * most)  # (slots,)
        self.row[self.slot] = torch.arange(len(trunk))
        self.longest = int(index.max())  # trunk tokens; no branch sees further
        self.trunks, device = trunks, trunks.ids[0].device
        self.used = (
            None if self.shape[0] == len(trunks.documents) == len(used) else used.repeat_interleave(parts).to(device)
        )
        self.index = index[self.row].view(self.shape).to(device)
        self.gathered: dict[int, Pair] = {}

    def see(self, own_tokens: int, own_length: Tensor) -> None:
        """Set what the next queries (slots, C) see: ``own_length`` (slots, C) of ``own_tokens`` tokens."""
        own_length = own_length.view(*self.shape, -1)
        self.seen = seen_by(self.longest, own_tokens, self.index, own_length)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attend from queries (slots, H, C, D); keys and values are (slots, H_kv, L, D)."""
        query, key, value = (part.view(*self.shape, *part.shape[1:]) for part in (query, key, value))
        inputs = (query, self._trunk(layer), (key, value), self.seen, scaling)
        if torch.is_grad_enabled() and (query.device.type != "cpu" or query.dtype != torch.bfloat16):
            attended = fused_branch_attention(*inputs)
        elif not torch.is_grad_enabled() or self.longest <= KEPT_PREFIX:
            attended = branch_attention(*inputs)
        else:
            attended = checkpoint(branch_attention, *inputs, use_reentrant=False, preserve_rng_state=False)
        return attended.flatten(0, 1)

    def _trunk(self, layer: int) -> Pair:
        """Return a layer's keys and values, those of a document for each of its parts, (N, H_kv, longest, D) each."""
        key, value = (part[layer][:, :, : self.longest] for part in (self.trunks.keys, self.trunks.values))
        if self.used is None:
            return key, value
        found = self.gathered.get(layer) or (key.index_select(0, self.used), value.index_select(0, self.used))
        if not torch.is_grad_enabled():
            self.gathered[layer] = found  # for the next tokens
        return found


class _WholeBranches:
    """Training pass: R branches of unequal length are read whole, packed one after another without padding."""

    def __init__(self, trunks: Trunks, positions: Sequence[Position], lengths: Tensor, device: torch.device) -> None:
        trunk, index = _located(trunks, positions)
        self.rectangle = _Rectangle(trunks, trunk, index)
        row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # packed place -> row
        column = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]  # packed place -> place in its row
        self.width = int(lengths.max())
        self.place = (self.rectangle.slot[row] * self.width + column).to(device)  # packed place -> in the rectangle
        self.position_ids = (index[row] + column).to(device)
        own_length = torch.arange(1, self.width + 1, device=device)
        self.rectangle.see(self.width, own_length.expand(self.rectangle.slots, -1))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        query, key, value = (self._spread(packed.transpose(0, 1)) for packed in (query, key, value))
        attended = self.rectangle.attend(layer, query, key, value, scaling)
        return attended.transpose(1, 2).flatten(0, 1).index_select(0, self.place)

    def _spread(self, packed: Tensor) -> Tensor:
        """Spread packed tokens (tokens, H, D) over slots (slots, H, L, D); pads are zeros, which nothing sees."""
        slots = self.rectangle.slots
        spread = packed.new_zeros(slots * self.width, *packed.shape[1:]).index_copy(0, self.place, packed)
        return spread.view(slots, self.width, *packed.shape[1:]).transpose(1, 2)


class GrowingBranches:
    """Sampling pass: R branches, of at most ``capacity`` tokens, that grow a few tokens at a time."""

    def __init__(self, trunks: Trunks, positions: Sequence[Position], capacity: int) -> None:
        self.trunks = trunks
        self.trunk, self.index = _located(trunks, positions)
        self._lay_out()
        _, kv_heads, _, dim = trunks.keys[0].shape
        shape = (len(trunks.keys), self.rectangle.slots, kv_heads, capacity, dim)
        self.keys, self.values = (trunks.keys[0].new_zeros(shape) for _ in range(2))
        self.lengths = torch.zeros(len(positions), dtype=torch.long, device=self.keys.device)  # own tokens so far

    def rectangle_of(self, rows: Tensor) -> _Rectangle:
        """Return how ``rows`` (ascending; on the CPU) lie beside their trunks."""
        return _Rectangle(self.trunks, self.trunk[rows], self.index[rows])

    def _lay_out(self) -> None:
        self.rectangle = _Rectangle(self.trunks, self.trunk, self.index)
        device = self.trunks.ids[0].device
        self.slot, self.start = self.rectangle.slot.to(device), self.index.to(device)

    def take(self, rows: Tensor) -> Self:
        """Return copies of ``rows`` (ascending; on the CPU), which grow on their own from here."""
        taken = copy.copy(self)
        taken.trunk, taken.index = self.trunk[rows], self.index[rows]
        taken._lay_out()
        source = self.slot[rows[taken.rectangle.row].to(self.slot.device)]
        taken.keys, taken.values = (kept.index_select(1, source) for kept in (self.keys, self.values))
        taken.lengths = self.lengths[rows.to(self.slot.device)]
        return taken

    def put(self, rows: Tensor, grown: Self, places: Tensor | None = None) -> None:
        """Let ``rows`` be as they grew elsewhere: as all rows there, or those at ``places``."""
        rows = rows.to(self.slot.device)
        source, capacity = grown.slot if places is None else grown.slot[places], self.keys.shape[3]
        for kept, new in ((self.keys, grown.keys), (self.values, grown.values)):
            kept[:, self.slot[rows]] = new[:, source, :, :capacity]
        self.lengths[rows] = grown.lengths if places is None else grown.lengths[places]

    def aim(self, rows: Tensor, new: int, reach: int | None = None) -> Tensor:
        """Prepare for ``new`` tokens on each of ``rows`` (ascending); returns their position ids (rows, new).

        ``reach`` is how many own tokens are looked at, where it is known without asking the device.
        """
        self.columns = self.lengths[rows, None] + torch.arange(new, device=self.lengths.device)
        reach = int(self.columns.max()) + 1 if reach is None else reach
        if reach > self.keys.shape[3]:
            raise ValueError(f"branches of {reach} tokens do not fit the capacity {self.keys.shape[3]}")
        self.reach, self.places = reach, self.slot[rows]
        own_length = self.columns.new_ones(self.rectangle.slots, new)
        own_length[self.places] = self.columns + 1
        self.rectangle.see(reach, own_length)
        return self.start[rows, None] + self.columns

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Store the new keys and values of the rows aimed at, and attend from them."""
        count, new = self.columns.shape
        query, key, value = (
            packed.view(packed.shape[0], count, new, packed.shape[-1]).transpose(0, 1) for packed in (query, key, value)
        )
        keys, values = self.keys[layer], self.values[layer]
        keys[self.places[:, None], :, self.columns] = key.transpose(1, 2)
        values[self.places[:, None], :, self.columns] = value.transpose(1, 2)
        full = count == self.rectangle.slots
        if not full:
            query = query.new_zeros(self.rectangle.slots, *query.shape[1:]).index_copy_(0, self.places, query)
        keys, values = keys[:, :, : self.reach], values[:, :, : self.reach]
        attended = self.rectangle.attend(layer, query, keys, values, scaling)
        attended = attended if full else attended[self.places]
        return attended.transpose(1, 2).flatten(0, 1)


class DocumentTree:
    """Run a transformers causal LM, whose attention goes through ``AttentionInterface``, over trunks and branches."""

    def __init__(self, model: Any, layers: LlamaLayers | None = None) -> None:
        self.model, self.layers = model, layers
        self.decoder = model.get_decoder()
        self.steps: dict[Any, Any] = {}  # decoding steps with fixed shapes, for the next call (engine/static.py)
        self.captures = True  # until a CUDA graph of one fails

    def run(self, tokens: Tensor, position_ids: Tensor, tree_pass: Any) -> Tensor:
        """Return the hidden states (n, d) of n tokens, packed, whose queries, keys and values go to ``tree_pass``."""
        if self.layers is not None:
            return self.layers(tokens.flatten(), position_ids.flatten(), tree_pass)
        inputs = {"input_ids": tokens.view(1, -1), "position_ids": position_ids.view(1, -1), "use_cache": False}
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
        hidden = self.run(torch.cat(list(trunks.ids)), positions, trunks)
        trunks.hidden = hidden.split([len(ids) for ids in trunks.ids])
        return trunks

    def sampling(self) -> AbstractContextManager[None]:
        """Return a context for sampling, in which no weight changes."""
        return nullcontext() if self.layers is None else self.layers.packed()

    def branches(self, trunks: Trunks, positions: Sequence[Position], capacity: int) -> GrowingBranches:
        """Start a branch of at most ``capacity`` tokens at each position, sorted by trunk."""
        return GrowingBranches(trunks, positions, capacity)

    @torch.no_grad()
    def grow(self, branches: GrowingBranches, rows: Tensor, tokens: Tensor, counts: Tensor | None = None) -> Tensor:
        """Append tokens (rows, C), on the device, to some branches; returns each one's last hidden state (rows, d).

        Of each row ``counts`` tokens are meant, by default all; what grows next is written over the others.
        """
        rows = rows.to(tokens.device)
        counts = torch.full_like(rows, tokens.shape[1]) if counts is None else counts.to(tokens.device)
        hidden = self.run(tokens, branches.aim(rows, tokens.shape[1]), branches)
        branches.lengths[rows] += counts
        return hidden.view(*tokens.shape, -1)[torch.arange(len(rows), device=rows.device), counts - 1]

    def whole(self, trunks: Trunks, positions: Sequence[Position], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states of whole branches, packed: (sum of lengths, d). Positions are sorted by trunk."""
        device = trunks.ids[0].device
        lengths = torch.tensor([len(row) for row in tokens])
        branches = _WholeBranches(trunks, positions, lengths, device)
        packed = torch.tensor([token for row in tokens for token in row], device=device)
        return self.run(packed, branches.position_ids, branches)
