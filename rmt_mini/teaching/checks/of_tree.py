"""Exercises on lesson 7, the document tree: who sees whom, what is shared, and whether both ways agree."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rmt_mini.engine.attention import tree_mask
from rmt_mini.teaching.checks.cases import Case, Exercise, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_tree as wrong

Branches = Sequence[tuple[int, int]]


def _drawn_tree(source: random.Random) -> tuple[int, list[tuple[int, int]]]:
    trunk = source.randint(2, 6)
    return trunk, [(source.randint(1, trunk - 1), source.randint(1, 4)) for _ in range(source.randint(1, 4))]


def position_ids(trunk: int, branches: Branches) -> list[int]:
    """Number the tokens of a tree: see notebooks/solutions/07_document_tree.ipynb."""
    return [*range(trunk), *(index + place for index, length in branches for place in range(length))]


def _position_ids(source: random.Random) -> Iterator[Case]:
    yield shape(3, [(1, 2)], hint="give a list of one number for each token, the trunk's first")
    two = "the trunk is 0 1 2 3; the branch at 2 has 2 3, the branch at 3 has 3"
    yield hand(4, [(2, 2), (3, 1)], gives=[0, 1, 2, 3, 2, 3, 3], hint=two)
    group = "two branches at the same index have the same ids: 1 2 and 1 2"
    yield hand(3, [(1, 2), (1, 2)], gives=[0, 1, 2, 1, 2, 1, 2], hint=group)
    for _ in range(40):
        yield chance(*_drawn_tree(source))
    yield edge(3, [], gives=[0, 1, 2], hint="a trunk without branches has its own ids alone")
    yield edge(2, [(1, 4)], gives=[0, 1, 1, 2, 3, 4], hint="a branch may reach further than its trunk")


def _mask(*rows: str) -> Tensor:
    return torch.tensor([[mark == "1" for mark in row] for row in rows])


def _tree_mask(source: random.Random) -> Iterator[Case]:
    yield shape(3, [(1, 2)], hint="give a square of truth values, as many rows as tokens")
    one = "tokens 0 to 2 are a causal trunk; the branch at 2 sees tokens 0 and 1 and itself so far"
    yield hand(3, [(2, 2)], gives=_mask("10000", "11000", "11100", "11010", "11011"), hint=one)
    two = "the branch at 1 sees token 0 alone, beside itself, and nothing of the branch before it"
    yield hand(2, [(1, 1), (1, 2)], gives=_mask("10000", "11000", "10100", "10010", "10011"), hint=two)
    for _ in range(40):
        yield chance(*_drawn_tree(source))
    yield edge(2, [], gives=_mask("10", "11"), hint="a trunk without branches is causal, as in any language model")
    yield edge(1, [(1, 1)], gives=_mask("10", "11"), hint="a branch at the trunk's end sees all of it")


def count_tokens(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Count the tokens of a step, shared and not: see notebooks/solutions/07_document_tree.ipynb."""
    grown = len(positions) * group_size
    return document + grown * branch, document + grown * (max(positions) + branch)


def _count_tokens(source: random.Random) -> Iterator[Case]:
    yield shape(10, [5], 2, 3, hint="give a tuple of two whole numbers")
    small = "tree: 3 + 2 = 5; rows: one of 2 + 2 and the document's 3 make 7"
    yield hand(3, [2], 1, 2, gives=(5, 7), hint=small)
    two = "tree: 100 + 8 branches of 20 = 260; rows: 8 as long as the longest, 80 + 20, and the document's 100: 900"
    yield hand(100, [40, 80], 4, 20, gives=(260, 900), hint=two)
    for _ in range(40):
        document = source.randint(2, 200)
        positions = [source.randint(1, document - 1) for _ in range(source.randint(1, 5))]
        yield chance(document, positions, source.randint(1, 8), source.randint(1, 30))
    yield edge(2, [1], 1, 1, gives=(3, 4), hint="the smallest step: a trunk of 2 tokens and a branch of 1")
    yield edge(10, [9, 9], 1, 1, gives=(12, 30), hint="two branches at one position are two branches")


def merge(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """Merge two softmaxes into one: see notebooks/solutions/07_document_tree.ipynb."""
    weight = torch.sigmoid(torch.tensor(trunk_total - own_total))
    return weight * trunk + (1 - weight) * own


def _merge(source: random.Random) -> Iterator[Case]:
    trunk, own = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 8.0])
    yield shape(trunk, 0.0, own, 0.0, hint="give one vector, of the shape of either part")
    three_quarters = "totals of 6 and 2: the trunk's part has the weight 6 / 8, and the branch's own 2 / 8"
    yield hand(trunk, math.log(6), own, math.log(2), gives=torch.tensor([3.0, 2.0]), hint=three_quarters)
    equal = "with equal totals both parts weigh one half"
    yield hand(trunk, math.log(5), own, math.log(5), gives=torch.tensor([2.0, 4.0]), hint=equal)
    for _ in range(30):
        size = source.randint(1, 4)
        parts = [torch.tensor([source.uniform(-2, 2) for _ in range(size)]) for _ in range(2)]
        yield chance(parts[0], source.uniform(-3, 3), parts[1], source.uniform(-3, 3))
    large = "exp(1000) is infinite; the difference of the two logarithms is log 3, and the weights are 3/4 and 1/4"
    yield edge(trunk, 1000 + math.log(3), own, 1000.0, gives=torch.tensor([3.0, 2.0]), hint=large)
    small = "exp(-1000) is 0 and 0 / 0 is nan; only the difference of the two logarithms matters"
    yield edge(trunk, -1000.0, own, -1000.0, gives=torch.tensor([2.0, 4.0]), hint=small)
    yield edge(trunk, 1000.0, own, -1000.0, gives=trunk, hint="a part whose total is far larger is all there is")


def relative_gap(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Measure how far two ways of computing differ: see notebooks/solutions/07_document_tree.ipynb."""
    gaps = [((one - other).norm() / other.norm()).item() for one, other in zip(ours, theirs, strict=True)]
    return max(gaps) if all(math.isfinite(gap) for gap in gaps) else math.inf


def _relative_gap(source: random.Random) -> Iterator[Case]:
    one = torch.tensor([3.0, 4.0])
    yield shape([one], [one], hint="give a float")
    tenth = "the difference has size 0.5, theirs has size 5: a tenth"
    yield hand([torch.tensor([3.3, 4.4])], [one], gives=0.1, hint=tenth)
    cancel = "the differences +1 and -1 have the size sqrt(2), and do not cancel"
    yield hand([torch.tensor([4.0, 3.0])], [one], gives=2**0.5 / 5, hint=cancel)
    for _ in range(30):
        sizes = [source.randint(1, 4) for _ in range(source.randint(1, 3))]
        theirs = [torch.tensor([source.gauss(0, 2) for _ in range(size)]) for size in sizes]
        yield chance([other + source.gauss(0, 0.1) * other.flip(0) + 0.01 for other in theirs], theirs)
    yield edge([one, one], [one, one], gives=0.0, hint="what is equal has no gap")
    worst = "of two tensors the second is twice too large: the largest gap counts, 1"
    yield edge([one, 2 * one], [one, one], gives=1.0, hint=worst)
    nan = torch.tensor([math.nan, 4.0])
    yield edge([one, nan], [one, one], gives=math.inf, hint="a nan must never pass for agreement: give inf")
    nothing = "zeros that equal zeros prove nothing, since no gradient arrived: give inf"
    yield edge([one, 0 * one], [one, 0 * one], gives=math.inf, hint=nothing)


EXERCISES = (
    Exercise(7, 1, position_ids, _position_ids, wrong.POSITION_IDS),
    Exercise(7, 3, tree_mask, _tree_mask, wrong.TREE_MASK),
    Exercise(7, 1, count_tokens, _count_tokens, wrong.COUNT_TOKENS),
    Exercise(7, 2, merge, _merge, wrong.MERGE),
    Exercise(7, 2, relative_gap, _relative_gap, wrong.RELATIVE_GAP),
)
