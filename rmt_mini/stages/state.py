"""Training state in memory: all that the steps to come depend on, beside settings, texts and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class State:
    """One state.

    Attributes:
        tensors: by name.
        plain: everything else, as JSON keeps it; "step" counts the steps done.
    """

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]
