"""Ways in which a case's arguments reach the learner's function, other than plainly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def differentiated(name: str, leaves: int = 1) -> Callable[..., Any]:
    """Make a call that takes the gradient of what the learner's function gives, summed, by its first arguments.

    Args:
        name: of the answer itself, beside "gradient".
        leaves: how many of the first arguments are differentiated by.

    Returns:
        A call that gives {name: the answer, "gradient": a tensor, or a list of them for several leaves}. The gradient
        is None where the answer has no graph; an answer that is no tensor is given as it is.

    Example:
        >>> differentiated("square")(torch.square, torch.tensor([3.0]))
        {'square': tensor([9.]), 'gradient': tensor([6.])}
    """

    def call(function: Callable[..., Any], *args: Any) -> Any:
        own = [arg.detach().clone().requires_grad_() for arg in args[:leaves]]
        given = [leaf.clone() for leaf in own]  # no leaves, as in training, where they come out of a model
        answer = function(*given, *args[leaves:])
        for arg, seen in zip(args, given, strict=False):
            arg.copy_(seen.detach())  # so that whoever holds the arguments sees whether they were changed
        if not isinstance(answer, Tensor):
            return answer
        gradients: Any = None
        if answer.requires_grad:
            gradients = list(torch.autograd.grad(answer.sum(), own, allow_unused=True, materialize_grads=True))
            gradients = gradients if leaves > 1 else gradients[0]
        return {name: answer.detach(), "gradient": gradients}

    return call
