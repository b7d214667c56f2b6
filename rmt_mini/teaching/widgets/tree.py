"""The document tree, drawn and counted: who sees whom, and what sharing a prefix saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rmt_mini.report.plots import Figured, document_tree, shared_against_copied
from rmt_mini.scale.planner import FRAME_TOKENS
from rmt_mini.teaching.widgets.controls import Explorer, explore, whole

TRUNK = ("A", "lift", "waits", "on", "floor", "3", "and", "rises", "first", "5", ".", "It", "stops", "at")
LENGTHS = tuple(round(16 * 2 ** (step / 4)) for step in range(33))  # documents of 16 to 4,096 tokens


@dataclass(frozen=True)
class Counts:
    """What a step reads as a tree and as padded rows: tokens, and pairs of a query and a key that it sees."""

    tree_tokens: int
    rows_tokens: int
    tree_pairs: int
    rows_pairs: int

    @property
    def token_saving(self) -> float:
        """How many times as many tokens the rows read."""
        return self.rows_tokens / self.tree_tokens

    @property
    def pair_saving(self) -> float:
        """How many times as many pairs the rows have."""
        return self.rows_pairs / self.tree_pairs


def count_step(document: int, positions: Sequence[int], group_size: int, branch: int) -> Counts:
    """Count the tokens and the attention pairs of a training step on one document, both ways.

    Tree: the document once, and every branch by itself. Rows: every rollout with its prefix, padded to the longest of
    them, and the document once more for its next tokens. A row of L tokens has L (L + 1) / 2 pairs, pads included.

    Args:
        document: T, tokens.
        positions: indices of the positions, each in 1..T-1.
        group_size: G, branches at each.
        branch: tokens of each branch, thought and frame.

    Raises:
        ValueError: if a position lies outside the document, or there is nothing to count.

    Example:
        >>> count_step(document=3, positions=[2], group_size=1, branch=2)
        Counts(tree_tokens=5, rows_tokens=7, tree_pairs=13, rows_pairs=16)
    """
    outside = [index for index in positions if not 1 <= index < document]
    if outside:
        raise ValueError(f"position {outside[0]} lies outside 1..{document - 1}, the positions of {document} tokens")
    if not positions or group_size < 1 or branch < 1:
        raise ValueError(f"{len(positions)} positions, {group_size=}, {branch=}: give at least one of each")
    grown = len(positions) * group_size
    longest = max(positions) + branch
    return Counts(
        document + grown * branch,
        document + grown * longest,
        _causal(document) + group_size * sum(index * branch + _causal(branch) for index in positions),
        _causal(document) + grown * _causal(longest),
    )


def _causal(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


def spread(document: int, positions: int) -> list[int]:
    """Return positions evenly over a document, at least 1.

    Example:
        >>> spread(100, 3)
        [25, 50, 75]
    """
    return [max(1, document * place // (positions + 1)) for place in range(1, positions + 1)]


def tree_or_rows(document: int, positions: int, group_size: int, thought: int) -> Figured:
    """Draw what the tree saves on a document with positions evenly over it.

    Args:
        document: T, tokens.
        positions: K.
        group_size: G.
        thought: tokens of each thought; its frame of opening, closing, cue and answer comes on top.

    Raises:
        ValueError: if the document is too short for so many positions.
    """
    if positions >= document:
        raise ValueError(f"{positions} positions do not fit a document of {document} tokens; at most {document - 1} do")
    branch = thought + FRAME_TOKENS
    here = count_step(document, spread(document, positions), group_size, branch)
    lengths = [length for length in LENGTHS if length > positions]
    counted = [count_step(length, spread(length, positions), group_size, branch) for length in lengths]
    savings = {
        "tokens": [one.token_saving for one in counted],
        "attention pairs": [one.pair_saving for one in counted],
    }
    tokens, pairs = (here.tree_tokens, here.rows_tokens), (here.tree_pairs, here.rows_pairs)
    return shared_against_copied(tokens, pairs, lengths, savings, document)


def cost_explorer() -> Explorer:
    """Move document, positions, group and thought over what the tree saves."""
    return explore(
        tree_or_rows,
        document=whole("T, document tokens", 128, 16, 2048, 16),
        positions=whole("K, positions", 4, 1, 16),
        group_size=whole("G, rollouts a position", 8, 1, 32),
        thought=whole("thought tokens", 12, 0, 256),
    )


def small_tree(first: int, second: int, group_size: int, thought: int) -> Figured:
    """Draw a tree of two positions on a short sentence.

    Args:
        first: index of one position.
        second: of the other; the same index makes one group of twice the size.
        group_size: G.
        thought: tokens of each thought.

    Raises:
        ValueError: if an index is no position of the sentence.
    """
    for index in (first, second):
        if not 1 <= index < len(TRUNK):
            raise ValueError(f"index={index} lies outside 1..{len(TRUNK) - 1}, the positions of this sentence")
    branch = ["think", *(f"c{place}" for place in range(1, thought + 1)), "/think", "y"]
    return document_tree(TRUNK, [(index, branch) for index in (first, second) for _ in range(group_size)])


def tree_explorer() -> Explorer:
    """Move two positions, the group and the thoughts over a small tree and its mask."""
    return explore(
        small_tree,
        first=whole("first position", 5, 1, len(TRUNK) - 1),
        second=whole("second position", 9, 1, len(TRUNK) - 1),
        group_size=whole("G, rollouts a position", 2, 1, 3),
        thought=whole("thought tokens", 4, 0, 6),
    )
