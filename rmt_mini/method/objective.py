"""Both losses in one step: reinforcement on the chosen positions, next-token prediction on all the rest.

Source: Tian et al., arXiv 2509.24375, dual training.

    m_pos = 1[pos not in C],   L_NTP = - sum_pos m_pos log p(tau_pos | tau_<pos),   L = L_RL + lambda * L_NTP

Named deviation: the paper's L_NTP is a sum, ours a mean over the masked tokens, since the same lambda would mean
another balance for every length of text. The paper's form is ``ntp_loss(..., count=1)``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rmt_mini.method.grpo import check_mask, mean_over


def ntp_mask(length: int, chosen: Sequence[int] | Tensor, first: int = 1) -> Tensor:
    """Mark the positions of a document that next-token prediction trains on; returns bool (length,), on the CPU.

    m[i] = 1[first <= i < length and i not in chosen]; position i means token i, predicted from the tokens before it.
    ``first`` is at least 1, since no token precedes token 0; it is later after a header.

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
    """Compute the next-token loss where the mask is True: L_NTP = - sum(mask * logprobs) / count, nats per token.

    Both have one shape; values where the mask is False, nan included, have no effect. ``count`` is the number of tokens
    in the whole step, where this is one of its micro-batches; without it sum(mask).

    Example:
        >>> ntp_loss(torch.tensor([-1.0, -2.0, -9.0]), torch.tensor([True, True, False])).item()
        1.5
    """
    check_mask(mask, logprobs)
    total = -torch.where(mask, logprobs, 0.0).sum()
    return mean_over(total, int(mask.sum()), count)


def rmt_loss(rl: Tensor, ntp: Tensor, ntp_weight: float) -> Tensor:
    """Add the two scalars: L = rl + ntp_weight * ntp; with ntp_weight 0 just rl, so that not even a nan comes from ntp.

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
