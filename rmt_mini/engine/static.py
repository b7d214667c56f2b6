"""Thoughts sampled with fixed shapes: on a GPU one step is a CUDA graph, captured once and replayed.

A small model's step is some thousand kernels of a few microseconds each; started one by one they take many times as
long as they compute. Here a step reads the last token of every row, samples the next and notes it, all on the device,
on tensors that keep their place. A row that is done stays and is computed for nothing. The CPU looks every few steps,
and moves the rows that still think to smaller tensors once they are half of a document's or fewer.
"""

import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import torch
from torch import Tensor

from rmt_mini.engine.logits import sample
from rmt_mini.engine.memory import free_memory
from rmt_mini.engine.model import Policy
from rmt_mini.engine.tree import DocumentTree, GrowingBranches, Trunks
from rmt_mini.errors import logger, out_of_memory
from rmt_mini.records import Position

STRIDE = 8  # steps before the CPU looks
ROOM = 64  # trunk and own tokens are rounded up to a multiple, so that few shapes are captured
Sizes = tuple[int, ...]  # of a step: documents, rows of each, trunk tokens, own tokens, decisions
Sampling = tuple[int, float, bool]  # the token that closes a thought, temperature, whether thoughts are forced
KEPT = 6  # steps of a model, each with keys and values of its own
SHARE = 1 / 3  # part of the device's memory for the keys and values of all kept steps


@dataclass
class Thoughts:
    """What R rows have sampled so far, on the device; all that still think have made as many decisions."""

    uniform: Tensor  # (R, decisions), a number for each decision
    caps: Tensor  # (R,), the longest thought of each, tokens
    tokens: Tensor  # (R, decisions), of the thoughts
    logprobs: Tensor  # (R, decisions), closing decisions included
    last: Tensor  # (R,), the token to be read next
    length: Tensor  # (R,), thought tokens
    closed: Tensor  # (R,), whether the model closed the thought
    depth: Tensor  # (1,), decisions made

    @classmethod
    def begin(cls, uniform: Tensor, caps: Sequence[int]) -> Self:
        """Return empty thoughts."""
        zeros = torch.zeros(uniform.shape, dtype=torch.long, device=uniform.device)
        flat = zeros.new_zeros(len(zeros))
        logprobs, depth = torch.zeros_like(uniform), zeros.new_zeros(1)
        ends = torch.tensor(caps, device=uniform.device)
        return cls(uniform, ends, zeros, logprobs, flat.clone(), flat.clone(), flat.bool(), depth)

    @property
    def thinking(self) -> Tensor:
        """Which rows still think, (R,)."""
        return ~self.closed & (self.length < self.caps)

    def draw(self, logits: Tensor, close: int, temperature: float, forced: bool) -> None:
        """Sample the next token of every row that still thinks, in place."""
        if forced:
            logits[:, close] = -torch.inf
        on, depth = self.thinking, self.depth
        token, logprob = sample(logits, temperature, self.uniform.index_select(1, depth)[:, 0])
        for kept, new in ((self.tokens, token), (self.logprobs, logprob)):
            kept.index_copy_(1, depth, torch.where(on, new, kept.index_select(1, depth)[:, 0])[:, None])
        self.closed |= on & (token == close)
        self.length += on & (token != close)
        self.last.copy_(torch.where(on, token, self.last))
        depth.add_(1).clamp_(max=self.uniform.shape[1] - 1)

    def put(self, rows: Tensor | slice, thoughts: Self, places: Tensor) -> None:
        """Let ``rows`` be as those at ``places`` of other thoughts."""
        for name in ("uniform", "tokens", "logprobs"):
            ours, theirs = getattr(self, name), getattr(thoughts, name)
            width = min(ours.shape[1], theirs.shape[1])  # of rounded shapes
            ours[rows, :width] = theirs[places, :width]
        for name in ("caps", "last", "length", "closed"):
            getattr(self, name)[rows] = getattr(thoughts, name)[places]
        self.depth.copy_(thoughts.depth)

    def found(self) -> list[tuple[list[int], list[float], bool]]:
        """Return each row's thought, the log-probabilities of its decisions, and whether the model closed it."""
        rows = zip(*(part.tolist() for part in (self.tokens, self.logprobs, self.length, self.closed)), strict=True)
        return [(tokens[:length], logprobs[: length + closed], closed) for tokens, logprobs, length, closed in rows]


class Step:
    """A decoding step of N x M rows, on tensors of its own; keys and values are of the kind of those of ``like``."""

    def __init__(self, policy: Policy, tree: DocumentTree, like: Trunks, sizes: Sizes, sampling: Sampling) -> None:
        self.head, self.sampling, device = policy.head, sampling, policy.device
        self.tree = weakref.proxy(tree)  # which keeps the step: a circle would keep graphs until Python collects it
        documents, rows, trunk_tokens, capacity, decisions = sizes
        kept = [
            [layer.new_zeros(documents, layer.shape[1], trunk_tokens, layer.shape[3]) for layer in layers]
            for layers in (like.keys, like.values)
        ]
        trunks = Trunks(dict.fromkeys(range(documents), ()), [torch.zeros(1, device=device)] * documents, (), *kept)
        positions = [Position(document, trunk_tokens, 0, 0.0) for document in range(documents) for _ in range(rows)]
        self.grown = GrowingBranches(trunks, positions, capacity)
        self.grown.start.zero_()  # until it is loaded: a rounded length may be no position that the model has
        self.thoughts = Thoughts.begin(torch.zeros(len(positions), decisions, device=device), [0] * len(positions))
        self.rows = torch.arange(len(positions), device=device)
        self.graph: Any = None  # the step as a CUDA graph

    def replay(self) -> None:
        """Do the step, as captured where it is."""
        if self.graph is None:
            self.run()
        else:
            self.graph.replay()

    def run(self) -> None:
        """Read the last token of every row and sample the next."""
        on = self.thoughts.thinking
        position_ids = self.grown.aim(self.rows, 1, reach=self.grown.keys.shape[3])
        hidden = self.tree.run(self.thoughts.last, position_ids, self.grown)
        self.grown.lengths += on
        self.thoughts.draw(self.head(hidden), *self.sampling)

    def capture(self) -> None:
        """Capture the step as a CUDA graph, while nobody thinks, so that trying it out changes nothing."""
        cuda: Any = torch.cuda
        with cuda.device(self.rows.device):
            before, stream = cuda.current_stream(), cuda.Stream()
            stream.wait_stream(before)
            with cuda.stream(stream):
                self.run()  # libraries set themselves up on their first calls
                mode = cuda.get_sync_debug_mode()
                cuda.set_sync_debug_mode("error")  # what asks the CPU fails here, where nothing is half captured
                try:
                    self.run()
                finally:
                    cuda.set_sync_debug_mode(mode)
                    before.wait_stream(stream)
            graph, pool = cuda.CUDAGraph(), cuda.graph_pool_handle()
            _forget_workspaces()
            try:
                # on our stream: PyTorch's own is of whatever device was current when it was first made
                with cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self.run()
            except BaseException:  # where a capture cannot be ended, PyTorch leaves its stream and its pool in use
                cuda.set_stream(before)
                with suppress(RuntimeError):
                    torch._C._cuda_endAllocateToPool(cuda.current_device(), pool)
                raise
            finally:
                _forget_workspaces()
        self.graph = graph

    def load(self, grown: GrowingBranches, thoughts: Thoughts, rows: Tensor) -> None:
        """Copy in ``rows``, M for each of N documents."""
        ours, shape, places = self.grown, grown.rectangle_of(rows), rows.to(self.rows.device)
        source = grown.slot[places]
        for name in ("keys", "values"):
            for kept, layer in zip(getattr(ours.trunks, name), getattr(grown.trunks, name), strict=True):
                used = layer if shape.used is None else layer[shape.used]
                kept[:, :, : shape.longest] = used[:, :, : shape.longest]
            own, theirs = getattr(ours, name), getattr(grown, name)
            for kept, layer in zip(own, theirs, strict=True):  # a layer at a time: all together are a copy more
                kept[:, :, : layer.shape[2]] = layer.index_select(0, source)
        ours.rectangle.index.copy_(shape.index)
        ours.start.copy_(grown.start[places])
        ours.lengths.copy_(grown.lengths[places])
        self.thoughts.put(slice(None), thoughts, places)


def _forget_workspaces() -> None:
    """Let cuBLAS take workspaces anew: graphs that share one crash where the graph it belongs to is dropped.

    That is https://github.com/pytorch/pytorch/issues/193402, and what torch.compile does.
    """
    torch._C._cuda_clearCublasWorkspaces()


def _rounded(count: int, unit: int = 8) -> int:
    """Round up to a multiple of ``unit``, or of more where that is less than a quarter."""
    unit = max(unit, 1 << max(0, count.bit_length() - 3))
    return -(-count // unit) * unit


def think_in_steps(
    policy: Policy,
    grown: GrowingBranches,
    caps: Sequence[int],
    logits: Tensor,  # (R, V), of the first decision of every row
    uniform: Tensor,  # (R, decisions)
    sampling: Sampling,
) -> Thoughts:
    """Sample the thoughts of R rows until each has closed or reached its cap."""
    tree = policy.tree
    assert isinstance(tree, DocumentTree)
    thoughts = Thoughts.begin(uniform, caps)
    thoughts.draw(logits, *sampling)
    while rows := thoughts.thinking.nonzero()[:, 0].tolist():
        by_document, sizes = _laid_out(grown, rows, uniform.shape[1])
        most = sizes[1]
        # a document with fewer repeats a row, which is computed for nothing
        padded = torch.tensor([found[min(n, len(found) - 1)] for found in by_document for n in range(most)])
        places = [most * n + place for n, found in enumerate(by_document) for place in range(len(found))]
        step = _step(policy, tree, grown.trunks, sizes, sampling)
        step.load(grown, thoughts, padded)
        left = most
        while _rounded(left) * 2 > most:
            for _ in range(STRIDE):
                step.replay()
            thinking = step.thoughts.thinking.view(len(by_document), most)
            left = int(thinking.sum(1).max())
        at = torch.tensor(places, device=policy.device)
        grown.put(torch.tensor(rows), step.grown, at)
        thoughts.put(torch.tensor(rows, device=policy.device), step.thoughts, at)
        del step  # its memory may be needed by the next one
    return thoughts


def _laid_out(grown: GrowingBranches, rows: Sequence[int], decisions: int) -> tuple[list[list[int]], Sizes]:
    """Return rows by document, and the sizes of a step for them, in which every document has as many."""
    by_document = [list(found) for _, found in groupby(rows, key=lambda row: int(grown.trunk[row]))]
    longest = _rounded(int(grown.index[list(rows)].max()), ROOM)
    room = (_rounded(count, ROOM) for count in (grown.keys.shape[3], decisions))
    return by_document, (len(by_document), _rounded(max(map(len, by_document))), longest, *room)


def fits(grown: GrowingBranches, decisions: int) -> bool:
    """Whether the keys and values of a step for all rows fit into their share of the memory."""
    sizes = _laid_out(grown, range(len(grown.index)), decisions)[1]
    return _bytes(sizes, grown.trunks) <= SHARE * free_memory(grown.keys.device)[1]


def _bytes(sizes: Sizes, like: Trunks) -> int:
    """Return the memory of a step's keys and values."""
    documents, rows, trunk_tokens, capacity, _ = sizes
    layer = like.keys[0]
    numbers = documents * layer.shape[1] * (rows * capacity + trunk_tokens) * layer.shape[3]
    return 2 * len(like.keys) * numbers * layer.itemsize


def can_capture(tree: DocumentTree) -> bool:
    """Whether steps are captured: on a CUDA GPU, until one fails."""
    return bool(tree.model.device.type == "cuda") and tree.captures


def _step(policy: Policy, tree: DocumentTree, like: Trunks, sizes: Sizes, sampling: Sampling) -> Step:
    """Return the step of these sizes, captured where that is possible."""
    key = (sizes, sampling)
    if key in tree.steps:
        tree.steps[key] = tree.steps.pop(key)  # last used, dropped last
    else:
        room = SHARE * free_memory(policy.device)[1] - _bytes(sizes, like)
        while tree.steps and (len(tree.steps) >= KEPT or sum(_bytes(one[0], like) for one in tree.steps) > room):
            del tree.steps[next(iter(tree.steps))]
        tree.steps[key] = step = Step(policy, tree, like, sizes, sampling)
        if can_capture(tree):
            try:
                step.capture()
            except Exception as error:  # an unknown architecture may ask the CPU, which cannot be captured
                if out_of_memory(error):
                    del tree.steps[key]
                    raise
                tree.captures = False
                reason = " ".join(str(error).split())[:200]
                logger.warning("A decoding step cannot be captured as a CUDA graph (%s); sampling is slower", reason)
    found: Step = tree.steps[key]
    return found
