"""Say in a few words how an answer differs from what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

RELATIVE, ABSOLUTE, LONGEST = 1e-4, 1e-6, 160


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


def difference(got: Any, expected: Any, shape_only: bool = False) -> str:
    """Say what follows "the answer ...", such as "is 1 and should be 2"; "" where both are alike.

    Numbers are alike where they agree to a ten-thousandth; a tensor without dimensions passes for a number, and a
    tuple for a list. ``shape_only`` ignores values.

    Example:
        >>> difference(torch.zeros(3), torch.zeros(3, 2))
        'has shape (3,) and should have (3, 2)'
        >>> difference(0.30000001, 0.3)
        ''
    """
    if got is None and expected is not None:
        return "is None"
    if isinstance(expected, Tensor):
        return _tensors(got, expected, shape_only)
    if isinstance(expected, bool | int | float):
        return _numbers(got, expected, shape_only)
    if isinstance(expected, Mapping | Sequence) and not isinstance(expected, str):
        return _parts(got, expected, shape_only)
    if type(got) is not type(expected):
        return _kinds(got, "None" if expected is None else f"a {type(expected).__name__}")
    return "" if shape_only or got == expected else _values(got, expected)


def _parts(got: Any, expected: Mapping[Any, Any] | Sequence[Any], shape_only: bool) -> str:
    """Compare keys or lengths, then part by part; name the first part that differs."""
    kind, keys = (Mapping, expected) if isinstance(expected, Mapping) else (Sequence, range(len(expected)))
    if not isinstance(got, kind) or isinstance(got, str):
        return _kinds(got, "a mapping" if kind is Mapping else f"a {type(expected).__name__}")
    if kind is Mapping and set(got) != set(expected):
        return f"has the keys {sorted(map(str, got))} and should have {sorted(map(str, expected))}"
    if len(got) != len(expected):
        return f"is {short(got)}, of length {len(got)}, and should be {short(expected)}, of {len(expected)}"
    for key in keys:
        if wrong := difference(got[key], expected[key], shape_only):
            return f"at [{key}]{wrong[2:].lstrip() if wrong.startswith('at [') else f' {wrong}'}"
    return ""


def _tensors(got: Any, expected: Tensor, shape_only: bool) -> str:
    if not isinstance(got, Tensor):
        return _kinds(got, "a tensor")
    if got.shape != expected.shape:
        return f"has shape {tuple(got.shape)} and should have {tuple(expected.shape)}"
    if _sort(got) != _sort(expected):
        return f"is a tensor of {_sort(got)} and should be one of {_sort(expected)}"
    if shape_only or torch.allclose(got.double(), expected.double(), RELATIVE, ABSOLUTE, equal_nan=True):
        return ""
    return _values(got, expected)


def _sort(value: Tensor) -> str:
    if value.dtype == torch.bool:
        return "truth values"
    return "floating-point numbers" if value.is_floating_point() else "whole numbers"


def _numbers(got: Any, expected: bool | int | float, shape_only: bool) -> str:
    if isinstance(got, Tensor) and got.ndim == 0:
        got = got.item()
    if isinstance(expected, bool) != isinstance(got, bool) or not isinstance(got, int | float):
        return _kinds(got, "True or False" if isinstance(expected, bool) else "a number")
    if isinstance(expected, int) and not isinstance(got, int):
        return f"is {short(got)}, a float, and should be a whole number (int)"
    both_nan = math.isnan(got) and math.isnan(expected)
    if shape_only or both_nan or math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return ""
    return _values(got, expected)


def _kinds(got: Any, wanted: str) -> str:
    return f"is {short(got)}, of type {type(got).__name__}, and should be {wanted}"


def _values(got: Any, expected: Any) -> str:
    return f"is {short(got)} and should be {short(expected)}"
