"""AdamW that keeps float32 master weights where the model runs in bfloat16.

At a learning rate of 1e-5 most updates are smaller than bfloat16 can add to a weight, so the sums are kept in float32
and the model holds a rounded copy. Weights are rounded once a step; nothing is cast inside a layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rmt_mini.engine.model import Policy
from rmt_mini.errors import NonFiniteError


def require_finite(name: str, value: Tensor, remedy: str = "") -> None:
    """Stop on NaN or infinity.

    Raises:
        NonFiniteError: naming the tensor, and the remedy where one is given.
    """
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError(f"{name} is not finite" + f"; {remedy}" * bool(remedy))


@torch.no_grad()
def require_sound(policy: Policy) -> None:
    """Stop before a policy is saved whose last update has run away: its weights, or what it computes, are not finite.

    Raises:
        NonFiniteError: naming the first tensor at fault.
    """
    remedy = "the weights have run away and are not saved; lower the learning rate and begin again"
    for name, parameter in policy.model.named_parameters():
        require_finite(f"after the last update {name}", parameter, remedy)
    (hidden,) = policy.tree.read([torch.arange(8, device=policy.device)]).hidden  # finite weights may overflow
    require_finite("after the last update a hidden state", hidden, remedy)


class MasterAdamW:
    """AdamW over a model's parameters, in float32 whatever the model's dtype.

    Args:
        model: its parameters are updated in place.
        learning_rate: constant.
        weight_decay: as torch.optim.AdamW.
        max_grad_norm: gradients are scaled down to this global norm.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float, max_grad_norm: float) -> None:
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.masters = [
            p if p.dtype in (torch.float32, torch.float64) else p.detach().float().requires_grad_()
            for _, p in self.named
        ]
        self.max_grad_norm = max_grad_norm
        self.inner = torch.optim.AdamW(
            self.masters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )

    def step(self) -> float:
        """Apply the gradients that backward left on the model, and clear them.

        Returns:
            The gradients' global norm before clipping.

        Raises:
            NonFiniteError: if it is not finite, naming the first parameter at fault; nothing is updated then.
        """
        for (_, parameter), master in zip(self.named, self.masters, strict=True):
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.to(master.dtype)
                parameter.grad = None
        norm = nn.utils.get_total_norm([master.grad for master in self.masters if master.grad is not None])
        if not bool(torch.isfinite(norm)):
            for (name, _), master in zip(self.named, self.masters, strict=True):
                if master.grad is not None:
                    require_finite(f"the gradient of {name}", master.grad)
            require_finite("the gradient norm", norm)
        nn.utils.clip_grads_with_norm_(self.masters, self.max_grad_norm, norm)
        self.inner.step()
        self.inner.zero_grad(set_to_none=True)
        with torch.no_grad():
            for (_, parameter), master in zip(self.named, self.masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        return float(norm)

    def drop_gradients(self) -> None:
        """Forget gradients that will not be applied."""
        for (_, parameter), master in zip(self.named, self.masters, strict=True):
            parameter.grad = master.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return what an exact resume needs: the masters and their moments, flat, by parts of their names."""
        found = {}
        for (name, _), master in zip(self.named, self.masters, strict=True):
            found[f"master/{name}"] = master.detach()
            found |= {f"{key}/{name}": value for key, value in self.inner.state.get(master, {}).items()}
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore ``state_dict``, and the model's weights with it."""
        keys = {name.split("/")[0] for name in state} - {"master"}
        self.inner.state.clear()  # a state from before the first step has no moments
        with torch.no_grad():
            for (name, parameter), master in zip(self.named, self.masters, strict=True):
                master.copy_(state[f"master/{name}"])
                if master is not parameter:
                    parameter.copy_(master)
                moments = {key: state[f"{key}/{name}"] for key in keys if f"{key}/{name}" in state}
                if moments:  # AdamW makes them at its first step; a count of steps stays in float32
                    self.inner.state[master] = {
                        key: value.to(master.device, torch.float32 if key == "step" else master.dtype)
                        for key, value in moments.items()
                    }
