"""What the expressions of ``teaching/exercises/*.yaml`` may call: ways to write a value, and to draw a random one."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch
from torch import Tensor

T, inf, nan = torch.tensor, math.inf, math.nan


def mask(*rows: str) -> Tensor:
    """Return truth values, one for each digit; a single row has one dimension."""
    made = T([[mark == "1" for mark in row] for row in rows])
    return made if len(rows) > 1 else made[0]


def rollout(
    text: list[int], thought: list[int], closed: bool, cue: list[int], answer: list[int]
) -> tuple[list[int], list[bool]]:
    """Return tokens, and for each whether the model wrote it; the closing tag is token 1."""
    parts = [(text, False), (thought, True), ([1], closed), (cue, False), (answer, True)]
    return [token for part, _ in parts for token in part], [own for part, own in parts for _ in part]


def names_to_draw(source: Random) -> dict[str, Any]:
    """Return what draws from a source: its own methods, whole numbers, floats as a tensor, tier probabilities."""

    def ints(low: int, high: int, count: int) -> list[int]:
        return [source.randint(low, high) for _ in range(count)]

    def floats(low: float, high: float, *size: int) -> Tensor:
        return T([source.uniform(low, high) for _ in range(math.prod(size))]).reshape(size)

    def mix() -> tuple[float, ...]:
        parts = ints(1, 9, 3)
        return tuple(part / sum(parts) for part in parts)

    methods = ("randint", "uniform", "gauss", "choice", "choices", "sample")
    own = {name: getattr(source, name) for name in methods}
    return own | {"chance": source.random, "ints": ints, "floats": floats, "mix": mix}
