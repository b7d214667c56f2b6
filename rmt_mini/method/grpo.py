"""From rewards to a gradient: advantages within a group, and the policy loss.

Source: Tian et al., arXiv 2509.24375, selective reinforcement with GRPO (arXiv 2402.03300), for the G rollouts o_i of
one position, which earn rewards r_i:

    A_i = (r_i - mean(r)) / (std(r) + delta)
    L_RL = -E[(1/G) sum_i A_i log pi(o_i)] + beta * KL(pi || pi_ref)

Named deviations, each an option: ``normalise="token"`` averages over tokens, where the paper sums a rollout's tokens
(``"rollout"``); ``scale=False`` leaves the division out (Dr. GRPO, arXiv 2503.20783); PPO's clip (arXiv 1707.06347) of
the ratio pi / pi_old, for several updates per sample. The paper does not say how it estimates KL; k3 is used here.
"""

import math

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, group_size: int, eps: float = 1e-4, scale: bool = True) -> Tensor:
    """Compare each rollout with the others at its position: A = (r - mean) / (std + eps) within each group.

    Rewards are (K, G), or (R,) with the rollouts of a group next to each other; so are the advantages. A group without
    spread gets exactly 0. std divides by G, not G - 1: the group is all there is. ``scale=False`` gives A = r - mean:
    dividing by std amplifies groups whose rewards barely differ.

    Example:
        >>> rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.3, 0.3, 0.3, 0.3])
        >>> [round(advantage, 3) for advantage in group_advantages(rewards, group_size=4).tolist()]
        [1.0, -1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    if not eps >= 0:
        raise ValueError(f"eps={eps} must not be negative; try 1e-4")
    grouped = _groups(rewards, group_size)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    if scale:
        centred = centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + eps)
    # equal rewards can differ from their own mean by a rounding error, which the division would amplify
    spread = grouped.amax(dim=1, keepdim=True) != grouped.amin(dim=1, keepdim=True)
    return torch.where(spread, centred, 0.0).reshape(rewards.shape)


def groups_with_signal(rewards: Tensor, group_size: int) -> Tensor:
    """Return bool (K,): the groups whose rollouts did not all earn the same; all others have advantage 0.

    Example:
        >>> groups_with_signal(torch.tensor([1.0, 0.0, 0.3, 0.3]), group_size=2).tolist()
        [True, False]
    """
    grouped = _groups(rewards, group_size)
    return grouped.amax(dim=1) != grouped.amin(dim=1)


def _groups(rewards: Tensor, group_size: int) -> Tensor:
    """View rewards as (K, G), in fp32 or better."""
    shape = tuple(rewards.shape)
    if group_size < 1:
        raise ValueError(f"group_size={group_size} must be at least 1; pass the number of rollouts per position")
    if rewards.ndim == 1 and shape[0] % group_size:
        raise ValueError(f"rewards of shape {shape} do not fill groups of group_size={group_size}; drop or fill one")
    if rewards.ndim not in (1, 2) or (rewards.ndim == 2 and shape[1] != group_size):
        raise ValueError(f"rewards has shape {shape}; give (R,), or (K, G) with G = group_size={group_size}")
    return rewards.to(torch.promote_types(rewards.dtype, torch.float32)).reshape(-1, group_size)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) from sampled tokens: k3 = exp(d) - d - 1 with d = log reference - log policy.

    Never negative; over tokens sampled from the policy its mean is the KL. With the sign of d turned it would not be.

    Example:
        >>> round(kl_estimate(torch.tensor(0.5).log(), torch.tensor(0.25).log()).item(), 4)  # 1/2 + log 2 - 1
        0.1931
    """
    _same_shape("reference_logprobs", reference_logprobs, logprobs)
    difference = reference_logprobs - logprobs
    return torch.expm1(difference) - difference  # expm1: exp(d) - 1 loses every digit where d is small


def is_clipped(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """Return bool (R, L): tokens whose gradient PPO's clip removes, since their ratio moved far enough as A wants.

    Log-probabilities are (R, L), nats; advantages (R,). Where A is positive the ratio has passed 1 + epsilon, where it
    is negative 1 - epsilon; on the other side ``rl_loss`` does not clip, nor where A is 0.

    Example:
        >>> ratios = torch.tensor([[1.3, 0.7], [1.3, 0.7]])
        >>> is_clipped(ratios.log(), torch.zeros(2, 2), torch.tensor([1.0, -1.0]), epsilon=0.2).tolist()
        [[True, False], [False, True]]
    """
    _same_shape("old_logprobs", old_logprobs, logprobs)
    ratio = (logprobs - old_logprobs).exp()
    return torch.where(advantages[:, None] > 0, ratio > 1 + epsilon, (advantages[:, None] < 0) & (ratio < 1 - epsilon))


def rl_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    old_logprobs: Tensor | None = None,
    clip_epsilon: float | None = None,
    reference_logprobs: Tensor | None = None,
    kl_weight: float = 0.0,
    normalise: str = "token",
    count: float | None = None,
) -> Tensor:
    """Compute the loss that makes rollouts of positive advantage likelier.

    L = mean over tokens of -min(ratio * A, clip(ratio, 1 - e, 1 + e) * A) + kl_weight * k3, ratio = exp(logprob - old).
    Without old_logprobs the ratio is 1 and its gradient that of the log-probability.

    Args:
        logprobs: (R, L), nats, of sampled tokens under the policy; carries the graph.
        advantages: (R,), constants.
        mask: bool (R, L), True on the tokens the policy sampled; other values, nan included, have no effect.
        old_logprobs: (R, L), nats, at sampling time; None: the policy has not moved since.
        clip_epsilon: e of PPO's clip, above 0; None: no clip.
        reference_logprobs: (R, L), nats, under the reference; needed if kl_weight is above 0.
        kl_weight: beta, 0 or above; at 0 the reference is left out altogether.
        normalise: "token": mean over masked tokens. "rollout": sum over a rollout's tokens, mean over the R rollouts.
        count: tokens ("token") or rollouts ("rollout") in the whole step, where this is one of its micro-batches.

    Example:
        >>> logprobs = torch.tensor([[-0.5, -2.0], [-1.0, 0.0]], requires_grad=True)
        >>> rl_loss(logprobs, torch.tensor([3.0, -3.0]), torch.tensor([[True, True], [True, False]])).backward()
        >>> logprobs.grad.tolist()  # -A / 3 tokens; nothing where the mask is False
        [[-1.0, -1.0], [1.0, 0.0]]
    """
    if logprobs.ndim != 2 or advantages.shape != logprobs.shape[:1]:
        raise ValueError(
            f"logprobs has shape {tuple(logprobs.shape)}, advantages {tuple(advantages.shape)}; give (R, L) and (R,)"
        )
    check_mask(mask, logprobs)
    if clip_epsilon is not None and not clip_epsilon > 0:
        raise ValueError(f"clip_epsilon={clip_epsilon} must be above 0; try 0.2, or None for no clip")
    if not kl_weight >= 0:
        raise ValueError(f"kl_weight={kl_weight} must not be negative; 0 leaves KL out")
    if kl_weight > 0 and reference_logprobs is None:
        raise ValueError(f"kl_weight={kl_weight} needs reference_logprobs; pass them, or set kl_weight to 0")
    if normalise not in ("token", "rollout"):
        raise ValueError(f"normalise={normalise!r} is unknown; choose 'token' or 'rollout'")

    # before exp: a nan or inf that is hidden only afterwards still spoils the gradient
    current = torch.where(mask, logprobs, 0.0)
    old = current.detach() if old_logprobs is None else _hidden("old_logprobs", old_logprobs, mask)
    ratio = (current - old).exp()
    advantage = advantages.detach()[:, None]  # (R, 1)
    gain = ratio * advantage
    if clip_epsilon is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * advantage)
    loss = -gain
    if kl_weight > 0 and reference_logprobs is not None:
        loss = loss + kl_weight * kl_estimate(current, _hidden("reference_logprobs", reference_logprobs, mask))
    total = torch.where(mask, loss, 0.0).sum()
    return mean_over(total, int(mask.sum()) if normalise == "token" else len(mask), count)


def mean_over(total: Tensor, own: int, count: float | None) -> Tensor:
    """Divide a sum over ``own`` items by ``count``, those of the whole step, or by ``own``; a sum over nothing is 0."""
    divisor = own if count is None else count
    if not 0 <= divisor < math.inf or (divisor == 0 and own > 0):
        raise ValueError(f"count={count} does not fit {own} items here; give the number in the whole step, or None")
    return total / (divisor or 1)


def check_mask(mask: Tensor, logprobs: Tensor) -> None:
    """Refuse a mask that is not boolean or not of the shape of logprobs."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask has dtype {mask.dtype}; give a boolean one, for example mask.bool()")
    _same_shape("mask", mask, logprobs)


def _hidden(name: str, constants: Tensor, mask: Tensor) -> Tensor:
    """Detach, and put 0 where the mask is False."""
    _same_shape(name, constants, mask)
    return torch.where(mask, constants.detach(), 0.0)


def _same_shape(name: str, value: Tensor, other: Tensor) -> None:
    if value.shape != other.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(other.shape)}; give one value a token")
