"""Wrong answers to the exercises on lesson 6, the dual objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

NTP, RL, NONE = "NTP", "RL", "none"


def _checked(ntp_weight: float) -> None:
    if ntp_weight < 0:
        raise ValueError("ntp_weight must not be negative")


def weighs_the_rl(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """You weigh the RL loss by lambda; it is the next-token loss that is weighed."""
    _checked(ntp_weight)
    return ntp if ntp_weight == 0 else ntp_weight * rl + ntp


def shares_of_one(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """You weigh RL by 1 - lambda; the paper adds lambda times the next-token loss to the whole RL loss."""
    _checked(ntp_weight)
    return rl if ntp_weight == 0 else (1 - ntp_weight) * rl + ntp_weight * ntp


def always_a_tenth(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """You weigh by the paper's 0.1, whatever ntp_weight says."""
    _checked(ntp_weight)
    return rl if ntp_weight == 0 else rl + 0.1 * ntp


def nan_at_weight_zero(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """At weight 0 you still multiply: 0 times nan is nan. Leave the part out, as the ablation without it means."""
    _checked(ntp_weight)
    return rl + ntp_weight * ntp


def graph_lost(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """The next-token loss enters as a bare number (item or detach).

    Its value counts, and nothing is learned from it.
    """
    _checked(ntp_weight)
    return rl if ntp_weight == 0 else rl + ntp_weight * ntp.detach()


def any_weight(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """A negative weight passes without a word, and would teach the model to predict badly; raise ValueError."""
    return rl if ntp_weight == 0 else rl + ntp_weight * ntp


RMT_LOSS = (weighs_the_rl, shares_of_one, always_a_tenth, nan_at_weight_zero, graph_lost, any_weight)


def _mask(length: int, chosen: Sequence[int], first: int = 1, by: int = 0, end: int = 0) -> Tensor:
    """Return the mask of places from ``first`` on, the chosen ones, moved by ``by``, left out."""
    outside = [place for place in chosen if not 1 <= place < length]
    if outside:
        raise ValueError("a chosen position lies outside the document")
    away = {place + by for place in chosen}
    return torch.tensor([first <= place < length - end and place not in away for place in range(length)]).bool()


def token_zero_too(length: int, chosen: Sequence[int]) -> Tensor:
    """Token 0 takes a loss with you; nothing stands before it to predict it from."""
    return _mask(length, chosen, first=0)


def last_token_missing(length: int, chosen: Sequence[int]) -> Tensor:
    """Off by one: the last token takes no loss with you, and what stands before it predicts it well enough."""
    return _mask(length, chosen, end=1)


def shifted_by_one(length: int, chosen: Sequence[int]) -> Tensor:
    """Your mask is shifted by one: position i means token i, not the state in front of it that predicts it."""
    return _mask(length, chosen, by=-1)


def chosen_counted_too(length: int, chosen: Sequence[int]) -> Tensor:
    """The chosen positions take the next-token loss too: it tells the answer that a thought is to find there."""
    _mask(length, chosen)
    return _mask(length, [])


def turned_round(length: int, chosen: Sequence[int]) -> Tensor:
    """Your mask is turned round: it is True on the chosen positions, and must be True on all others but token 0."""
    outside = _mask(length, chosen)
    turned = ~outside
    turned[:1] = False
    return turned


def from_the_end(length: int, chosen: Sequence[int]) -> Tensor:
    """A place outside the document passes: -1 silently counts from the end, and frees a wrong token.

    Raise ValueError.
    """
    outside = [place % length for place in chosen if -length <= place < length]
    return _mask(length, [place for place in outside if place])


def ones_and_zeros(length: int, chosen: Sequence[int]) -> Tensor:
    """Your mask holds numbers; one of truth values (torch.bool) can pick tokens, and ~ turns it round."""
    return _mask(length, chosen).long()


NTP_MASK = (
    token_zero_too, last_token_missing, shifted_by_one, chosen_counted_too, turned_round, from_the_end, ones_and_zeros,
)  # fmt: skip


def _own(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of each token from the second on."""
    return logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]


def _mean(logprobs: Tensor, mask: Tensor) -> Tensor:
    return -torch.where(mask, logprobs, 0.0).sum() / max(1, int(mask.sum()))


def copies_what_it_reads(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """You ask logits[i] for token i, which was just read there; what stands before token i is logits[i - 1]."""
    return _mean(logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0], mask)


def mask_one_behind(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Your mask is shifted by one against the tokens: mask[i] goes with token i, as ids[1:] goes with mask[1:]."""
    return _mean(_own(logits, ids), mask[:-1])


def rl_tokens_counted(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """You take the loss on every token and leave the mask aside, so that RL's tokens are counted in NTP too."""
    return _mean(_own(logits, ids), torch.ones_like(mask[1:]))


def over_all_tokens(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """You divide by all tokens; the mean runs over the masked tokens alone, or each chosen position dilutes it."""
    return -torch.where(mask[1:], _own(logits, ids), 0.0).sum() / max(1, len(ids) - 1)


def not_normalised(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """You take the logits as they are; log-probabilities are their log_softmax."""
    return _mean(logits[:-1].gather(-1, ids[1:, None])[:, 0], mask[1:])


def minus_missing(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The minus is missing.

    A log-probability is below 0, a loss is its negative and falls as the text gets likelier.
    """
    return -_mean(_own(logits, ids), mask[1:])


def mean_over_nothing(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is empty you divide by 0: one nan gradient spoils every weight. Give a zero."""
    return -torch.where(mask[1:], _own(logits, ids), 0.0).sum() / mask[1:].sum()


def zero_without_graph(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Where the mask is empty you return a zero made by hand: it has no graph, and backward() on it raises.

    The sum over nothing is a zero that has one.
    """
    return _mean(_own(logits, ids), mask[1:]) if mask[1:].any() else torch.zeros(())


NEXT_TOKEN_LOSS = (
    copies_what_it_reads, mask_one_behind, rl_tokens_counted, over_all_tokens, not_normalised, minus_missing,
    mean_over_nothing, zero_without_graph,
)  # fmt: skip


def _marks(
    length: int,
    chosen: Sequence[int],
    branch: Mapping[str, int],
    closed: bool,
    *,
    first: str = NONE,
    at_chosen: str = NONE,
    opening: str = NONE,
    own_closing: str = RL,
    forced_closing: str = NONE,
    rest_of_closing: str = NONE,
    cue: str = NONE,
    answer: str = RL,
) -> list[str]:
    """Return who learns from each token; each slip is one part of another mark."""
    trunk = [first if place == 0 else at_chosen if place in chosen else NTP for place in range(length)]
    closing = [own_closing if closed else forced_closing] + [rest_of_closing] * (branch["closing"] - 1)
    return [
        *trunk,
        *[opening] * branch["opening"],
        *[RL] * branch["thought"],
        *closing,
        *[cue] * branch["cue"],
        *[answer] * branch["answer"],
    ]


def first_token_predicted(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """Token 0 learns by NTP with you; nothing stands before it to predict it from."""
    return _marks(length, chosen, branch, closed, first=NTP)


def told_the_answer(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """RL tokens are counted in NTP: at a chosen position the next-token loss would tell the answer to be found."""
    return _marks(length, chosen, branch, closed, at_chosen=NTP)


def rl_in_the_trunk(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """You mark the chosen token of the trunk RL; the RL loss is taken on what the model sampled, in the branch."""
    return _marks(length, chosen, branch, closed, at_chosen=RL)


def instruction_learned(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The opening takes the RL loss with you; the environment wrote it, the model chose none of its tokens."""
    return _marks(length, chosen, branch, closed, opening=RL)


def paid_for_being_cut_off(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The first closing token learns by RL even where the environment wrote it.

    That is the model's choice only where the thought closed itself.
    """
    return _marks(length, chosen, branch, closed, forced_closing=RL)


def never_told_to_stop(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The first closing token never learns with you; where the thought closed itself the model chose it."""
    return _marks(length, chosen, branch, closed, own_closing=NONE)


def whole_tag(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The whole closing tag learns with you where the thought closed itself; the model chose only its first token."""
    return _marks(length, chosen, branch, closed, rest_of_closing=RL if closed else NONE)


def cue_predicted(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The cue repeats text that the trunk has learned from already; in the branch it takes no loss."""
    return _marks(length, chosen, branch, closed, cue=NTP)


def answer_left_out(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """The answer takes no loss with you.

    The model sampled it as it sampled the thought, and it is what was rewarded.
    """
    return _marks(length, chosen, branch, closed, answer=NONE)


WHO_LEARNS = (
    first_token_predicted, told_the_answer, rl_in_the_trunk, instruction_learned, paid_for_being_cut_off,
    never_told_to_stop, whole_tag, cue_predicted, answer_left_out,
)  # fmt: skip


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def _weighed(first: float, second: float, product: float) -> dict[str, float]:
    both = first * second
    return {"rl": first, "ntp": second, "cosine": product / both if both else math.nan}


def _norms(rl: Sequence[Tensor], ntp: Sequence[Tensor]) -> tuple[float, float, float]:
    one, other = _flat(rl), _flat(ntp)
    return one.norm().item(), other.norm().item(), (one @ other).item()


def lambda_forgotten(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """You give the norm of the next-token gradient as it is; in the step it comes in multiplied by lambda."""
    one, other, product = _norms(rl, ntp)
    return _weighed(one, other, product)


def norms_added_up(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """You add up the norms of the tensors; their *squares* add up, and the norm is the root of that sum."""
    one, other, product = _norms(rl, ntp)
    sums = [sum(part.norm().item() for part in parts) for parts in (rl, ntp)]
    return _weighed(one, ntp_weight * other, ntp_weight * product) | {"rl": sums[0], "ntp": ntp_weight * sums[1]}


def squares_without_root(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """You leave out the root: what you give as norms are squares of norms."""
    one, other, product = _norms(rl, ntp)
    found = _weighed(one, ntp_weight * other, ntp_weight * product)
    return found | {"rl": one**2, "ntp": (ntp_weight * other) ** 2}


def lambda_in_the_cosine(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """Your cosine divides by lambda and does not multiply by it: a cosine does not depend on lengths, nor on lambda."""
    one, other, product = _norms(rl, ntp)
    return _weighed(one, ntp_weight * other, product)


def mean_of_cosines(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """You average the cosines of the tensors.

    The gradient is *one* vector, so first add up the products of all parts.
    """
    one, other, product = _norms(rl, ntp)
    parts = [_weighed(*_norms([a], [b]))["cosine"] for a, b in zip(rl, ntp, strict=True)]
    found = _weighed(one, ntp_weight * other, ntp_weight * product)
    return found if math.isnan(found["cosine"]) else found | {"cosine": sum(parts) / len(parts)}


def no_direction_is_zero(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """Where a gradient is zero you report a cosine of 0, which reads as "at right angles"; there is none: nan."""
    one, other, product = _norms(rl, ntp)
    found = _weighed(one, ntp_weight * other, ntp_weight * product)
    return found | {"cosine": 0.0} if math.isnan(found["cosine"]) else found


WEIGH_GRADIENTS = (
    lambda_forgotten, norms_added_up, squares_without_root, lambda_in_the_cosine, mean_of_cosines, no_direction_is_zero,
)  # fmt: skip
