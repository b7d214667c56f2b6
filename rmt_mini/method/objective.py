"""Both losses in one step: reinforcement on the chosen positions, next-token prediction on all the rest.

Source: Tian et al., arXiv 2509.24375, dual training.

    m_pos = 1[pos not in C]
    L_NTP = - sum_pos m_pos log p(tau_pos | tau_<pos)
    L = L_RL + lambda * L_NTP

lambda is ``ntp_weight``, C the positions a step's reinforcement runs on.

Named deviation: the paper's L_NTP is a sum, ours a mean over the masked tokens. The sum grows with the document's
length and the micro-batch, so the same lambda would mean another balance for every text. The paper's form is
``ntp_loss(..., count=1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rmt_mini.method.grpo import check_mask, mean_over


def ntp_mask(length: int, chosen: Sequence[int] | Tensor, first: int = 1) -> Tensor:
    """Mark the positions of a document that next-token prediction trains on.

    m[i] = 1[first <= i < length and i not in chosen]; position i means token i, predicted from the tokens before it.

    Args:
        length: tokens in the document.
        chosen: C, distinct or not, each in first..length-1.
        first: first position with a loss, at least 1, since no token precedes token 0; later after a header.

    Returns:
        bool (length,), on the CPU.

    Raises:
        ValueError: if length or first is too small, or a chosen position is outside the document.

    Example:
        >>> ntp_mask(5, chosen=[2, 4]).int().tolist()
        [0, 1, 0, 1, 0]
    """
    if length < 0:
        raise ValueError(f"length={length} must not be negative; pass the number of tokens")
    if first < 1:
        raise ValueError(f"first={first} must be at least 1; no token precedes token 0 to predict it from")
    places = torch.as_tensor(chosen, dtype=torch.long, device="cpu").flatten()
    outside = places[(places < first) | (places >= length)]
    if len(outside):  # a negative place would count from the end and free the wrong token
        raise ValueError(f"chosen holds {int(outside[0])}, outside first={first}..{length - 1}; index the document")
    mask = torch.arange(length) >= first
    mask[places] = False
    return mask


def ntp_loss(logprobs: Tensor, mask: Tensor, *, count: float | None = None) -> Tensor:
    """Compute the next-token loss where the mask is True, in nats per token.

    L_NTP = - sum(mask * logprobs) / count, with count = sum(mask) unless given

    Args:
        logprobs: any shape, nats, of the text's own tokens; carries the graph.
        mask: bool, the same shape; values where it is False, nan included, have no effect.
        count: tokens in the whole step, where this is one of its micro-batches.

    Returns:
        Scalar. Without any masked token a zero that still has a graph.

    Raises:
        ValueError: if the mask is not boolean or of another shape, or count does not fit.

    Example:
        >>> ntp_loss(torch.tensor([-1.0, -2.0, -9.0]), torch.tensor([True, True, False])).item()
        1.5
    """
    check_mask(mask, logprobs)
    total = -torch.where(mask, logprobs, 0.0).sum()
    return mean_over(total, int(mask.sum()), count)


def rmt_loss(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """Add the two losses: L = rl + ntp_weight * ntp.

    With ntp_weight (lambda, the paper's is 0.1) 0 it is rl itself, so that not even a nan comes from ntp.

    Raises:
        ValueError: if a loss is no scalar, or ntp_weight is negative or not finite.

    Example:
        >>> round(rmt_loss(torch.tensor(2.0), torch.tensor(5.0), ntp_weight=0.1).item(), 4)
        2.5
    """
    for name, loss in (("rl", rl), ("ntp", ntp)):
        if loss.ndim:
            raise ValueError(f"{name} has shape {tuple(loss.shape)}; give a scalar, as {name}_loss returns")
    if not 0 <= ntp_weight < math.inf:
        raise ValueError(f"ntp_weight={ntp_weight} must be finite and not negative; the paper takes 0.1")
    return rl if ntp_weight == 0 else rl + ntp_weight * ntp
