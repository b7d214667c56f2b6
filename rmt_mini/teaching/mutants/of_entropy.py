"""Wrong answers to the exercises on lesson 2, token entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rmt_mini.method.entropy import token_entropy


def _summed(p: Tensor) -> Tensor:
    terms: Tensor = torch.special.entr(p)  # -p log p, and 0 at p = 0
    return terms.sum(-1)


def overflows(logits: Tensor) -> Tensor:
    """Your exp overflows: the exponential of a large logit is inf, and inf / inf is nan; use softmax or log_softmax."""
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return _summed(p)


def nan_at_zero(logits: Tensor) -> Tensor:
    """A token of probability 0 makes everything nan: 0 * log 0 counts as 0 in the definition, but 0 * -inf is nan."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def log_of_zero(logits: Tensor) -> Tensor:
    """You take the log of a probability that is 0, or underflows to it: log 0 is -inf, and 0 * -inf is nan."""
    p = logits.softmax(-1)
    return -(p * p.log()).sum(-1)


def in_bits(logits: Tensor) -> Tensor:
    """You measure in bits, with the logarithm to base 2; the package, and the thresholds, are in nats."""
    return token_entropy(logits) / math.log(2)


def minus_forgotten(logits: Tensor) -> Tensor:
    """The sign is wrong: log p is never positive, so that the minus before the sum makes the entropy positive."""
    return -token_entropy(logits)


def over_positions(logits: Tensor) -> Tensor:
    """You normalise over the first dimension; a distribution is over the vocabulary, the last one."""
    return _summed(logits.softmax(0))


def mean_over_tokens(logits: Tensor) -> Tensor:
    """You take the mean over the vocabulary; entropy is a sum, p(v) is the weight of each term already."""
    return token_entropy(logits) / logits.shape[-1]


def candidates(logits: Tensor) -> Tensor:
    """You return exp(H), the number of candidates; the entropy is H itself."""
    return token_entropy(logits).exp()


def loss_of_the_likeliest(logits: Tensor) -> Tensor:
    """You return -log p of the likeliest token; the entropy is the mean of -log p over all of them, weighted by p."""
    return -logits.log_softmax(-1).amax(-1)


TOKEN_ENTROPY = (
    overflows, nan_at_zero, log_of_zero, in_bits, minus_forgotten, over_positions, mean_over_tokens, candidates,
    loss_of_the_likeliest,
)  # fmt: skip


def not_renormalised(logits: Tensor, top_k: int) -> Tensor:
    """The k probabilities do not sum to 1: take the softmax over the k logits, not the k largest of the softmax."""
    return _summed(logits.softmax(-1).topk(top_k, -1).values)


def least_likely(logits: Tensor, top_k: int) -> Tensor:
    """You keep the k smallest logits, as if sorted the wrong way round; the likeliest ones are wanted."""
    return token_entropy(logits.topk(top_k, -1, largest=False).values)


def one_too_many(logits: Tensor, top_k: int) -> Tensor:
    """Off by one: you keep k + 1 tokens where there are as many."""
    return token_entropy(logits, min(top_k + 1, logits.shape[-1]))


def zero_is_a_logit(logits: Tensor, top_k: int) -> Tensor:
    """You set the other logits to 0, which is a logit like any other, of weight exp(0) = 1; -inf leaves a token out."""
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(top_k, -1).indices, True)
    return token_entropy(logits.masked_fill(~kept, 0.0))


def ties_all_stay(logits: Tensor, top_k: int) -> Tensor:
    """You keep every token that is at least as likely as the k-th: where several are equal, more than k stay."""
    border = logits.topk(top_k, -1).values[..., -1:]
    return token_entropy(logits.masked_fill(logits < border, -math.inf))


def rest_as_one(logits: Tensor, top_k: int) -> Tensor:
    """The other tokens stay in as one more candidate, with what is left of the probability; leave them out."""
    kept = logits.softmax(-1).topk(top_k, -1).values
    rest = (1 - kept.sum(-1, keepdim=True)).clamp(min=0)
    return _summed(torch.cat([kept, rest], -1))


def first_k(logits: Tensor, top_k: int) -> Tensor:
    """You keep the first k tokens of the vocabulary; which ones are likely, the logits say, not the places."""
    return token_entropy(logits[..., :top_k])


TOP_K_ENTROPY = (
    not_renormalised, least_likely, one_too_many, zero_is_a_logit, ties_all_stay, rest_as_one, first_k,
)  # fmt: skip


def _checked(entropy: Tensor, thresholds: Sequence[float]) -> tuple[float, float]:
    low, high = thresholds
    if low > high or not bool(entropy.isfinite().all()):
        raise ValueError("thresholds descend, or an entropy is not finite")
    return low, high


def equality_is_harder(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """An entropy that equals a threshold goes to the harder tier with you (>= for >): the easier side has it."""
    low, high = _checked(entropy, thresholds)
    return (entropy >= low).long() + (entropy >= high).long()


def sides_differ(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Equality falls on the easier side at the first threshold, and on the harder one at the second: > at both."""
    low, high = _checked(entropy, thresholds)
    return (entropy > low).long() + (entropy >= high).long()


def hard_is_zero(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """The tiers are numbered the wrong way round: easy is 0 and hard is 2."""
    low, high = _checked(entropy, thresholds)
    return 2 - (entropy > low).long() - (entropy > high).long()


def never_medium(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """No position is medium: your second comparison overwrites the first, where the two should add up."""
    _, high = _checked(entropy, thresholds)
    return 2 * (entropy > high).long()


def floats(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Your tiers are floating-point numbers; they are indices, and must be whole: int64, which .long() gives."""
    low, high = _checked(entropy, thresholds)
    return (entropy > low).float() + (entropy > high).float()


def any_thresholds(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Thresholds that descend pass without a word, and no tier means what it should; raise ValueError."""
    low, high = thresholds
    _checked(entropy, (0.0, 1.0))
    return (entropy > low).long() + (entropy > high).long()


def nan_is_easy(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """An entropy that is nan passes as easy, since nan exceeds nothing; raise ValueError, something broke before."""
    low, high = _checked(torch.zeros(1), thresholds)
    return (entropy > low).long() + (entropy > high).long()


ASSIGN_TIERS = (
    equality_is_harder, sides_differ, hard_is_zero, never_medium, floats, any_thresholds, nan_is_easy,
)  # fmt: skip


def _means(loss: Tensor, tiers: Tensor) -> Tensor:
    return torch.stack([loss[tiers == tier].mean() for tier in range(3)])


def summed(loss: Tensor, tiers: Tensor) -> Tensor:
    """You take sums: the tier with the most positions then looks the hardest, whatever its losses are."""
    return torch.stack([loss[tiers == tier].sum() for tier in range(3)])


def divided_by_all(loss: Tensor, tiers: Tensor) -> Tensor:
    """You divide by the number of all positions; a tier's mean is over the tier's own."""
    return summed(loss, tiers) / len(loss)


def zero_for_none(loss: Tensor, tiers: Tensor) -> Tensor:
    """A tier without positions gets a loss of 0, which reads as perfect; there is none: nan."""
    return _means(loss, tiers).nan_to_num(0.0)


def shifted_by_one(loss: Tensor, tiers: Tensor) -> Tensor:
    """The mask is shifted by one: each loss is counted in the tier of the position before it."""
    return _means(loss, tiers.roll(1))


def median(loss: Tensor, tiers: Tensor) -> Tensor:
    """You take the median; a few tokens with a large loss, which it does not see, are what the mean is asked about."""
    return torch.stack([loss[tiers == tier].nanmedian() for tier in range(3)])


def means_of_the_rest(loss: Tensor, tiers: Tensor) -> Tensor:
    """The mask is the wrong way round: you average over the positions outside each tier."""
    return torch.stack([loss[tiers != tier].mean() for tier in range(3)])


LOSS_BY_TIER = (summed, divided_by_all, zero_for_none, shifted_by_one, median, means_of_the_rest)


def _pairs(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    return (positive[:, None] > negative).double(), (positive[:, None] == negative).double()


def ties_lose(positive: Tensor, negative: Tensor) -> float:
    """Equal ones count nothing: a score that is the same for all would look worse than chance; count one half."""
    above, _ = _pairs(positive, negative)
    return float(above.mean())


def ties_win(positive: Tensor, negative: Tensor) -> float:
    """Equal ones count in full: a score that is the same for all would look perfect; count one half."""
    above, level = _pairs(positive, negative)
    return float((above + level).mean())


def side_by_side(positive: Tensor, negative: Tensor) -> float:
    """You compare the first with the first, the second with the second; every positive meets every negative."""
    count = min(len(positive), len(negative))
    one, other = positive[:count], negative[:count]
    return float(((one > other).double() + (one == other).double() / 2).mean())


def means_compared(positive: Tensor, negative: Tensor) -> float:
    """You compare the two means: one far value can turn them round, where it makes up few of the pairs."""
    one, other = positive.mean(), negative.mean()
    return float((one > other).double() + (one == other).double() / 2)


def wrong_way_round(positive: Tensor, negative: Tensor) -> float:
    """You count pairs in which the negative is higher; the positive one should be."""
    above, level = _pairs(negative, positive)
    return float((above + level / 2).mean())


def floor_division(positive: Tensor, negative: Tensor) -> float:
    """The share is rounded down to a whole number (//): it is 0 unless every pair is in order."""
    above, level = _pairs(positive, negative)
    return float((above + level / 2).sum() // above.numel())


AUC = (ties_lose, ties_win, side_by_side, means_compared, wrong_way_round, floor_division)
