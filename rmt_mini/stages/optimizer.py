"""AdamW that keeps float32 master weights where the model runs in bfloat16.

At a learning rate of 1e-5 most updates are smaller than bfloat16 can add to a weight; the model has a rounded copy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.errors import NonFiniteError, logger

ZERO = torch.zeros(())
BUCKET = 2**23  # numbers whose update is computed at once
SKIPPED_IN_A_ROW = 5  # updates that may be skipped before a run gives up


def require_finite(name: str, value: Tensor, remedy: str = "") -> None:
    """Raise NonFiniteError, with the tensor's name and a remedy, on NaN or infinity."""
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError(f"{name} is not finite; {remedy}" if remedy else f"{name} is not finite")


@torch.no_grad()
def require_sound(policy: Policy) -> None:
    """Raise NonFiniteError before a policy is saved whose weights, or what it computes, are not finite."""
    remedy = "the weights have run away and are not saved; lower the learning rate and begin again"
    for name, parameter in policy.model.named_parameters():
        require_finite(f"after the last update {name}", parameter, remedy)
    (hidden,) = policy.tree.read([range(8)]).hidden  # finite weights may overflow
    require_finite("after the last update a hidden state", hidden, remedy)


Weight = tuple[str, nn.Parameter, Tensor]  # name, parameter and master


class MasterAdamW:
    """AdamW over a model's parameters, in float32 whatever their dtype; gradients are clipped to a global norm."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float, max_grad_norm: float) -> None:
        self.weights: list[Weight] = [
            (name, p, p if p.dtype in (torch.float32, torch.float64) else p.detach().float().requires_grad_())
            for name, p in model.named_parameters()
            if p.requires_grad
        ]  # the master is the parameter itself where that is precise enough
        masters = [master for _, _, master in self.weights]
        self.max_grad_norm = max_grad_norm
        self.inner = torch.optim.AdamW(
            masters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
        )

    def step(self) -> float:
        """Apply the model's gradients, if finite, and clear them; returns their norm before clipping."""
        gradients = {name: parameter.grad for name, parameter, _ in self.weights if parameter.grad is not None}
        norms = [vector_norm(one, dtype=torch.promote_types(one.dtype, torch.float32)) for one in gradients.values()]
        norm = vector_norm(torch.stack(norms or [ZERO]))
        if not bool(torch.isfinite(norm)):
            for name, gradient in gradients.items():
                require_finite(f"the gradient of {name}", gradient)
            require_finite("the gradient norm", norm)
        clip = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        given = [one for one in self.weights if one[0] in gradients]
        bucket = [end // BUCKET for end in accumulate(master.numel() for _, _, master in given)]
        # so that the masters' gradients need not all exist at once
        for _, pairs in groupby(zip(bucket, given, strict=True), key=itemgetter(0)):
            some = [one for _, one in pairs]
            for name, parameter, master in some:
                parameter.grad = None
                master.grad = gradients.pop(name).to(master.dtype).mul_(clip)
            self.inner.step()
            with torch.no_grad():
                for _, parameter, master in some:
                    master.grad = None
                    if master is not parameter:
                        parameter.copy_(master)
        return float(norm)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what an exact resume needs: the masters and their moments, flat, by parts of their names."""
        found = {}
        for name, _, master in self.weights:
            found[f"master/{name}"] = master.detach()
            found |= {f"{key}/{name}": value for key, value in self.inner.state.get(master, {}).items()}
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore ``state_dict``, and the model's weights with it."""
        self.inner.state.clear()  # a state from before the first step has no moments
        with torch.no_grad():
            for name, parameter, master in self.weights:
                master.copy_(state[f"master/{name}"])
                if master is not parameter:
                    parameter.copy_(master)
                for key in {whole.split("/")[0] for whole in state} - {"master"}:
                    dtype = torch.float32 if key == "step" else master.dtype
                    if f"{key}/{name}" in state:
                        self.inner.state[master][key] = state[f"{key}/{name}"].to(master.device, dtype)


class Guard:
    """Apply a step's updates all or not at all: where something is not finite, ``on_nan`` says whether to continue."""

    def __init__(self, optimizer: MasterAdamW, config: RMTConfig) -> None:
        self.optimizer, self.config = optimizer, config
        self.skipped = self.in_a_row = 0  # steps left out: all, and those since the last good one

    @contextmanager
    def step(self, step: int) -> Iterator[list[Any]]:
        """Collect the updates of a step in a list, emptied if they are skipped; NonFiniteError if the run must stop."""
        several = self.config.updates_per_step > 1
        start = {name: value.clone() for name, value in self.optimizer.state_dict().items()} if several else None
        updates: list[Any] = []
        try:
            yield updates
        except NonFiniteError as error:
            updates.clear()
            for _, parameter, _ in self.optimizer.weights:
                parameter.grad = None
            if start is not None:
                self.optimizer.load_state_dict(start)  # takes back the step's earlier updates
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            found, rate = f"step {step}: {error}", f"lower learning_rate ({self.config.learning_rate})"
            if self.config.on_nan == "stop":
                remedy = f"the weights are those of the step before; {rate}, or skip such steps (on_nan)"
                raise NonFiniteError(f"{found}; {remedy}", can_skip=True) from error
            if self.in_a_row >= SKIPPED_IN_A_ROW:
                raise NonFiniteError(f"{found}, as in the {SKIPPED_IN_A_ROW - 1} steps before; {rate}") from error
            if self.skipped == 1:  # once: a run of thousands of steps may skip many
                logger.warning("Step %d: %s; its update is skipped, and so are others like it", step, error)
        else:
            self.in_a_row = 0
