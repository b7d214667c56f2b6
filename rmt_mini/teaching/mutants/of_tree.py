"""Wrong answers to the exercises on lesson 7, the document tree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Branches = Sequence[tuple[int, int]]


def counted_on(trunk: int, branches: Branches) -> list[int]:
    """You count on through all branches.

    A branch goes on behind the trunk token before its position, not behind the tokens that happen to stand before
    it in memory.
    """
    return list(range(trunk + sum(length for _, length in branches)))


def from_zero(trunk: int, branches: Branches) -> list[int]:
    """Your branches begin at 0, as if no text stood before them; a branch begins at the index at which it leaves."""
    return [*range(trunk), *(place for _, length in branches for place in range(length))]


def one_behind(trunk: int, branches: Branches) -> list[int]:
    """Off by one: a branch replaces the token at its index, so its first token has that very position id."""
    return [*range(trunk), *(index + 1 + place for index, length in branches for place in range(length))]


def behind_the_trunk(trunk: int, branches: Branches) -> list[int]:
    """Your branches begin behind the whole trunk; a branch begins at the index at which it leaves."""
    return [*range(trunk), *(trunk + place for _, length in branches for place in range(length))]


def siblings_in_line(trunk: int, branches: Branches) -> list[int]:
    """A second branch at the same index goes on where the first one ended; it begins at the index like the first."""
    ids, reached = list(range(trunk)), dict[int, int]()
    for index, length in branches:
        start = reached.get(index, index)
        ids += range(start, start + length)
        reached[index] = start + length
    return ids


POSITION_IDS = (counted_on, from_zero, one_behind, behind_the_trunk, siblings_in_line)


def _owners(trunk: int, branches: Branches) -> tuple[Tensor, Tensor]:
    """Return of each token the number of its branch, -1 in the trunk, and its place there."""
    owner = [-1] * trunk + [number for number, (_, length) in enumerate(branches) for _ in range(length)]
    place = [*range(trunk), *(place for _, length in branches for place in range(length))]
    return torch.tensor(owner, dtype=torch.long), torch.tensor(place, dtype=torch.long)


def _mask(trunk: int, branches: Branches, *, past: int = 0, strict: bool = False, causal: bool = True) -> Tensor:
    """Return who sees whom: ``past`` trunk tokens too many, itself or not, what follows in its branch or not."""
    owner, place = _owners(trunk, branches)
    reach = torch.tensor([index + past for index, _ in branches] + [trunk])[owner]  # -1 takes the last, the trunk's
    earlier = (place[None] < place[:, None] + (0 if strict else 1)) | ((owner[:, None] >= 0) & (not causal))
    own = (owner[:, None] == owner[None]) & earlier
    of_trunk = (owner[:, None] >= 0) & (owner[None] < 0) & (place[None] < reach[:, None])
    return own | of_trunk


def sees_its_answer(trunk: int, branches: Branches) -> Tensor:
    """Off by one: a branch sees the token at its own index, which is the answer that it is to find."""
    return _mask(trunk, branches, past=1)


def sees_the_whole_trunk(trunk: int, branches: Branches) -> Tensor:
    """A branch sees the whole trunk, what follows its position too; it may see only the tokens before its index."""
    return _mask(trunk, branches, past=trunk)


def sees_nothing_of_the_trunk(trunk: int, branches: Branches) -> Tensor:
    """A branch sees itself alone.

    It goes on from the trunk, and sees every token there that stands before its index.
    """
    return _mask(trunk, branches, past=-trunk)


def sees_other_branches(trunk: int, branches: Branches) -> Tensor:
    """A branch sees the branches laid out before it; each is a thought of its own, and must see no other."""
    owner, _ = _owners(trunk, branches)
    before = (owner[None] >= 0) & (owner[None] < owner[:, None])
    return _mask(trunk, branches) | before


def sees_its_siblings(trunk: int, branches: Branches) -> Tensor:
    """Branches at one index see each other.

    A group's rollouts are drawn independently, or they could not be compared.
    """
    owner, _ = _owners(trunk, branches)
    index = torch.tensor([index for index, _ in branches] + [-1])[owner]
    before = (owner[None] >= 0) & (owner[None] < owner[:, None]) & (index[None] == index[:, None])
    return _mask(trunk, branches) | before


def blind_to_itself(trunk: int, branches: Branches) -> Tensor:
    """Off by one on the diagonal: a token sees itself, too."""
    return _mask(trunk, branches, strict=True)


def sees_its_own_future(trunk: int, branches: Branches) -> Tensor:
    """A branch token sees what comes after it in its own branch; a token sees itself and what stands before it."""
    return _mask(trunk, branches, causal=False)


def transposed(trunk: int, branches: Branches) -> Tensor:
    """Rows and columns are swapped: a row is a token that looks, and its columns are what it sees."""
    return _mask(trunk, branches).T.contiguous()


TREE_MASK = (
    sees_its_answer, sees_the_whole_trunk, sees_nothing_of_the_trunk, sees_other_branches, sees_its_siblings,
    blind_to_itself, sees_its_own_future, transposed,
)  # fmt: skip


def _rows(document: int, positions: Sequence[int], group_size: int, branch: int) -> int:
    return document + len(positions) * group_size * (max(positions) + branch)


def _tree(document: int, positions: Sequence[int], group_size: int, branch: int) -> int:
    return document + len(positions) * group_size * branch


def prefix_for_each_position(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Your tree reads the prefix once for each position; the document is read once, and serves all positions."""
    tree = _tree(document, positions, group_size, branch) + sum(positions)
    return tree, _rows(document, positions, group_size, branch)


def one_branch_a_position(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Your tree grows one branch at each position.

    G rollouts are G branches, and only what lies before them is shared.
    """
    return _tree(document, positions, 1, branch), _rows(document, positions, group_size, branch)


def document_row_forgotten(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Your rows leave out the document itself, which is a row too: its next tokens are trained on."""
    return _tree(document, positions, group_size, branch), _rows(0, positions, group_size, branch)


def not_padded(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """You leave out the pads: rows of a batch are as long as the longest of them."""
    rows = document + group_size * sum(index + branch for index in positions)
    return _tree(document, positions, group_size, branch), rows


def whole_document_in_front(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Your rows have the whole document in front; a rollout reads only what stands before its position."""
    rows = document + len(positions) * group_size * (document + branch)
    return _tree(document, positions, group_size, branch), rows


def one_row_a_position(document: int, positions: Sequence[int], group_size: int, branch: int) -> tuple[int, int]:
    """Your rows count one rollout a position; there are G at each, each with its own copy of the prefix."""
    return _tree(document, positions, group_size, branch), _rows(document, positions, 1, branch)


COUNT_TOKENS = (
    prefix_for_each_position, one_branch_a_position, document_row_forgotten, not_padded, whole_document_in_front,
    one_row_a_position,
)  # fmt: skip


def halves(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """You give both parts the same weight; a part weighs as much as its exponentials add up to."""
    return (trunk + own) / 2


def weighed_by_logs(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """You weigh by the logarithms of the totals; take the exponential first."""
    both = trunk_total + own_total
    return (trunk_total * trunk + own_total * own) / (both or 1)


def weights_swapped(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """The weights are swapped: the trunk's share goes with the trunk's result."""
    return _merged(own, trunk_total, trunk, own_total)


def not_divided(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """You add up the weighed parts and do not divide by both totals: weights of an average add up to 1."""
    return math.exp(min(trunk_total, 700)) * trunk + math.exp(min(own_total, 700)) * own


def overflowing(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    """Right on paper, but exp of a large number is infinite and inf / inf is nan.

    Only the *difference* of the two logarithms matters, so subtract the larger one first.
    """
    totals = torch.tensor([trunk_total, own_total]).exp()
    weights = totals / totals.sum()
    return weights[0] * trunk + weights[1] * own


def _merged(trunk: Tensor, trunk_total: float, own: Tensor, own_total: float) -> Tensor:
    weight = torch.tensor(trunk_total - own_total).sigmoid()
    return weight * trunk + (1 - weight) * own


MERGE = (halves, weighed_by_logs, weights_swapped, not_divided, overflowing)


def _gap(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[float]:
    """Return the relative gaps; infinite where a comparison proves nothing."""
    found = []
    for one, other in zip(ours, theirs, strict=True):
        gap = ((one - other).norm() / other.norm()).item()
        found.append(gap if math.isfinite(gap) else math.inf)
    return found


def absolute(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """You give the size of the difference itself.

    A hundredth is nothing beside 1000, and everything beside a hundredth. Divide by the size of theirs.
    """
    proven = all(map(math.isfinite, _gap(ours, theirs)))
    sizes = [(one - other).norm().item() for one, other in zip(ours, theirs, strict=True)]
    return max(sizes) if proven else math.inf


def signs_cancel(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """You add up differences with their signs, so that one too large hides one too small; take the norm."""
    found = [abs((one - other).sum().item()) / other.norm().item() for one, other in _pairs(ours, theirs)]
    return max(found) if all(map(math.isfinite, _gap(ours, theirs))) else math.inf


def _pairs(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(one, other) for one, other in zip(ours, theirs, strict=True) if other.norm() > 0]


def averaged_away(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """You average over the tensors: one wrong parameter among a hundred hardly shows. Take the largest gap."""
    found = _gap(ours, theirs)
    return sum(found) / len(found)


def nan_slips_through(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """A nan slips through: max() compares, and no comparison with nan is ever true. Ask math.isfinite first."""
    found = [gap for one, other in _pairs(ours, theirs) if not math.isnan(gap := _gap_or_nan(one, other))]
    zero = any(other.norm() == 0 for other in theirs)
    return math.inf if zero else max(found, default=0.0)


def _gap_or_nan(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def zeros_agree(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Two tensors of zeros pass for alike: where no gradient arrived at all, a comparison proves nothing. Give inf."""
    found = []
    for one, other in zip(ours, theirs, strict=True):
        nothing = bool((one == 0).all() and (other == 0).all())
        found.append(0.0 if nothing else _gap([one], [other])[0])
    return max(found)


RELATIVE_GAP = (absolute, signs_cancel, averaged_away, nan_slips_through, zeros_agree)
