"""Say in a few words how an answer differs from what was expected."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

RELATIVE, ABSOLUTE, LONGEST = 1e-4, 1e-6, 160
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "True or False"), (int, "a whole number (int)"), (float, "a number"), (str, "a str"),
    (Mapping, "a mapping"), (Sequence, "a list"), (type(None), "None"),
)  # fmt: skip


def short(value: Any) -> str:
    """Write a value in little room.

    Example:
        >>> short(torch.tensor([0.5, 1.25])), short("a thought"), short([torch.tensor(-0.0)])
        ('tensor([0.5, 1.25])', "'a thought'", '[tensor(0.0)]')
    """
    if isinstance(value, Tensor):
        text = f"tensor({short(value.detach().tolist())})"
    elif isinstance(value, float):
        text = str(float(f"{value:.4g}") + 0.0)  # no minus before a zero
    elif isinstance(value, list):
        text = f"[{', '.join(map(short, value))}]"
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        numbers = "floating-point" if value.is_floating_point() else "whole"
        return f"a tensor of {'truth values' if value.dtype == torch.bool else f'{numbers} numbers'}"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def difference(got: Any, expected: Any, shape_only: bool = False) -> str:
    """Say what follows "the answer ...", such as "is 1 and should be 2"; "" where both are alike.

    Numbers are alike where they agree to a ten-thousandth; a tensor without dimensions passes for a number, a whole
    number for a float, and a tuple for a list. ``shape_only`` ignores values.

    Example:
        >>> difference(torch.zeros(3), torch.zeros(3, 2))
        'has shape (3,) and should have (3, 2)'
        >>> difference(0.30000001, 0.3)
        ''
    """
    if got is None and expected is not None:
        return "is None"
    if isinstance(got, Tensor) and got.ndim == 0 and isinstance(expected, int | float):
        got = got.item()
    passes = isinstance(got, int) and not isinstance(got, bool) and isinstance(expected, float)
    if _kind(got) != _kind(expected) and not passes:
        return f"is {short(got)}, {_kind(got)}, and should be {_kind(expected)}"
    if isinstance(expected, Mapping) and set(got) != set(expected):
        return f"has the keys {sorted(map(str, got))} and should have {sorted(map(str, expected))}"
    if isinstance(expected, Mapping | Sequence) and not isinstance(expected, str):
        if len(got) != len(expected):
            return f"is {short(got)}, of length {len(got)}, and should be {short(expected)}, of {len(expected)}"
        for key in expected if isinstance(expected, Mapping) else range(len(expected)):
            if wrong := difference(got[key], expected[key], shape_only):
                return f"at [{key}]{wrong[2:].lstrip() if wrong.startswith('at [') else f' {wrong}'}"
        return ""
    if isinstance(expected, Tensor):
        if got.shape != expected.shape:
            return f"has shape {tuple(got.shape)} and should have {tuple(expected.shape)}"
        alike = torch.allclose(got.double(), expected.double(), RELATIVE, ABSOLUTE, equal_nan=True)
    elif isinstance(expected, int | float):
        both_nan = math.isnan(got) and math.isnan(expected)
        alike = both_nan or math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        alike = got == expected
    return "" if shape_only or alike else f"is {short(got)} and should be {short(expected)}"
