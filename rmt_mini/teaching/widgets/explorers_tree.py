"""What the explorers of lesson 7 draw: a document tree, and what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rmt_mini.report.plots import Figured, document_tree, shared_against_copied
from rmt_mini.scale.planner import FRAME_TOKENS

TRUNK = ("A", "lift", "waits", "on", "floor", "3", "and", "rises", "first", "5", ".", "It", "stops", "at")
LENGTHS = tuple(round(16 * 2 ** (step / 4)) for step in range(33))  # documents of 16 to 4,096 tokens


@dataclass(frozen=True)
class Counts:
    """Tokens that a step reads as a tree and as padded rows, and pairs of a query and a key that it sees."""

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
    """Count tokens and attention pairs of a training step on one document, as a tree and as rows.

    Tree: the document once, and every branch by itself. Rows: every rollout with its prefix, padded to the longest,
    and the document once for its next tokens. A row of L tokens has L (L + 1) / 2 pairs, padding included.

    Args:
        document: T, tokens.
        positions: indices, each in 1..T-1.
        group_size: G, branches at each.
        branch: tokens of each branch, delimiters included.

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

    def causal(tokens: int) -> int:
        return tokens * (tokens + 1) // 2

    rollouts, longest = len(positions) * group_size, max(positions) + branch
    pairs = causal(document) + group_size * sum(index * branch + causal(branch) for index in positions)
    return Counts(
        document + rollouts * branch,
        document + rollouts * longest,
        pairs,
        causal(document) + rollouts * causal(longest),
    )


def spread(document: int, positions: int) -> list[int]:
    """Return positions evenly over a document, at least 1.

    Example:
        >>> spread(100, 3)
        [25, 50, 75]
    """
    return [max(1, document * place // (positions + 1)) for place in range(1, positions + 1)]


def tree_or_rows(document: int, positions: int, group_size: int, thought: int) -> Figured:
    """Draw what the tree saves on a document of T tokens with K positions evenly over it."""
    if positions >= document:
        raise ValueError(f"{positions} positions do not fit a document of {document} tokens; at most {document - 1} do")
    lengths = [length for length in LENGTHS if length > positions]
    here, *counted = (
        count_step(length, spread(length, positions), group_size, thought + FRAME_TOKENS)
        for length in (document, *lengths)
    )
    savings = {
        "tokens": [one.token_saving for one in counted],
        "attention pairs": [one.pair_saving for one in counted],
    }
    tokens, pairs = (here.tree_tokens, here.rows_tokens), (here.tree_pairs, here.rows_pairs)
    return shared_against_copied(tokens, pairs, lengths, savings, document)


def small_tree(first: int, second: int, group_size: int, thought: int) -> Figured:
    """Draw a tree of two positions on a short sentence; the same index twice makes one group of twice the size."""
    for index in (first, second):
        if not 1 <= index < len(TRUNK):
            raise ValueError(f"index={index} lies outside 1..{len(TRUNK) - 1}, the positions of this sentence")
    branch = ["think", *(f"c{place}" for place in range(1, thought + 1)), "/think", "y"]
    return document_tree(TRUNK, [(index, branch) for index in (first, second) for _ in range(group_size)])
