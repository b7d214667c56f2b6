"""What explorers draw from formulas alone: curriculum, one group, KL, and what a document tree saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rmt_mini.config import preset
from rmt_mini.method.rewards import total_reward
from rmt_mini.report.plots import (
    Figured,
    advantage_bars,
    curriculum_curve,
    document_tree,
    kl_estimates,
    shared_against_copied,
    tier_draws,
)
from rmt_mini.runs.plan import FRAME_TOKENS

TRUNK = ("A", "lift", "waits", "on", "floor", "3", "and", "rises", "first", "5", ".", "It", "stops", "at")
LENGTHS = tuple(round(16 * 2 ** (step / 4)) for step in range(33))  # documents of 16 to 4,096 tokens


def mixes(
    curriculum_start: float,
    curriculum_end: float,
    early_easy: float,
    early_medium: float,
    late_easy: float,
    late_medium: float,
    step: int,
) -> Figured:
    """Draw p_t over 100 steps; the hard tier gets what easy and medium leave."""
    probabilities = []
    for name, easy, medium in (("early", early_easy, early_medium), ("late", late_easy, late_medium)):
        hard = round(1 - easy - medium, 6)
        if hard < 0:
            raise ValueError(
                f"{name} tier probabilities: {easy:g} easy and {medium:g} medium leave {hard:g} for hard; "
                "choose at most 1 together"
            )
        probabilities.append((easy, medium, hard))
    early, late = probabilities
    return curriculum_curve(100, early, late, curriculum_start, curriculum_end, step)


def draws(easy: int, medium: int, hard: int, per_step: int, seed: int) -> Figured:
    """Draw what the sampler takes from documents with these numbers of positions, over 60 steps of the preset micro."""
    micro = preset("micro")
    return tier_draws(60, micro.tier_probs_early, micro.tier_probs_late, (easy, medium, hard), per_step, seed=seed)


def one_group(group_size: int, right: int, length_weight: float, last: float, only_if_correct: bool) -> Figured:
    """Draw the advantages of G rollouts, of which the first are right; all but the last have a length reward of 1."""
    if right > group_size:
        raise ValueError(f"right={right}, but the group has only group_size={group_size} rollouts")
    lengths = [1.0] * (group_size - 1) + [last]
    rewards = [total_reward(float(n < right), one, length_weight, only_if_correct) for n, one in enumerate(lengths)]
    return advantage_bars([rewards])


def moved_policy(move: float, vocabulary: int, samples: int, seed: int) -> Figured:
    """Draw the KL of a policy from a reference with probabilities as 1, 1/2, 1/3, ..., and its estimates.

    The policy's logits are higher by up to ``move`` for rare tokens, and lower for frequent ones.
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary={vocabulary} must be at least 2; with one token there is nothing to choose")
    reference = [1 / (place + 1) for place in range(vocabulary)]
    policy = [p * math.exp(move * (2 * place / (vocabulary - 1) - 1)) for place, p in enumerate(reference)]
    return kl_estimates([p / sum(policy) for p in policy], [q / sum(reference) for q in reference], samples, seed)


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
