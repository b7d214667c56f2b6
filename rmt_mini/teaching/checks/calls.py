"""What cases of exercises need besides plain values: names in expressions, and other ways to call.

``difference`` says in a few words how an answer differs from what was expected.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
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


def difference(got: Any, expected: Any, shape_only: bool = False, within: float = ABSOLUTE) -> str:
    """Say what follows "the answer ...", such as "is 1 and should be 2"; "" where both are alike.

    Numbers are alike where they agree to a ten-thousandth; a tensor without dimensions passes for a number, a whole
    number for a float, and a tuple for a list. ``shape_only`` ignores values; numbers may be ``within`` apart.
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
            if wrong := difference(got[key], expected[key], shape_only, within):
                return f"at [{key}]{wrong[2:].lstrip() if wrong.startswith('at [') else f' {wrong}'}"
        return ""
    if isinstance(expected, Tensor):
        if got.shape != expected.shape:
            return f"has shape {tuple(got.shape)} and should have {tuple(expected.shape)}"
        alike = torch.allclose(got.double(), expected.double(), RELATIVE, within, equal_nan=True)
    elif isinstance(expected, int | float):
        both_nan = math.isnan(got) and math.isnan(expected)
        alike = both_nan or math.isclose(got, expected, rel_tol=RELATIVE, abs_tol=within)
    else:
        alike = got == expected
    return "" if shape_only or alike else f"is {short(got)} and should be {short(expected)}"


def written(value: Any) -> Any:
    """Return a value as JSON can carry it; what ``restored`` cannot restore becomes its name and its text."""
    if isinstance(value, Tensor):
        return {"tensor": value.detach().flatten().tolist(), "kind": str(value.dtype)[6:], "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {"pairs": [[written(key), written(one)] for key, one in value.items()]}
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, Sequence):
        parts = [written(one) for one in value]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    return {"other": type(value).__name__, "text": repr(value)[:LONGEST]}


def restored(found: dict[str, Any]) -> Any:
    """Return the value that was ``written``, as json.loads calls it."""
    if "tensor" in found:
        return torch.tensor(found["tensor"], dtype=getattr(torch, found["kind"])).reshape(found["shape"])
    if "pairs" in found:
        return dict(found["pairs"])
    if "other" in found:
        return type(found["other"], (), {"__repr__": lambda _: str(found["text"])})()
    return tuple(found["tuple"]) if "tuple" in found else found


def case_names(seed: str) -> dict[str, Any]:
    """Return what expressions of cases may use: ways to write a value, and to draw a random one."""
    source = random.Random(seed)

    def ints(low: int, high: int, count: int) -> list[int]:
        return [source.randint(low, high) for _ in range(count)]

    def floats(low: float, high: float, *size: int) -> Tensor:
        return torch.tensor([source.uniform(low, high) for _ in range(math.prod(size))]).reshape(size)

    def mix() -> tuple[float, ...]:
        parts = ints(1, 9, 3)
        return tuple(part / sum(parts) for part in parts)

    values = {"T": torch.tensor, "inf": math.inf, "nan": math.nan, "math": math, "torch": torch}
    drawn = {name: getattr(source, name) for name in ("randint", "uniform", "gauss", "choice", "choices", "sample")}
    ours = {"short": short, "ints": ints, "floats": floats, "mix": mix}
    return values | drawn | ours | {"chance": source.random}


def differentiated(name: str, leaves: int = 1) -> Callable[..., Any]:
    """Make a call that gives a function's answer under ``name``, and its "gradient" by the first arguments."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        own = [arg.detach().clone().requires_grad_() for arg in args[:leaves]]
        given = [leaf.clone() for leaf in own]  # no leaves, as in training, where a model computes them
        answer = function(*given, *args[leaves:])
        for arg, seen in zip(args, given, strict=False):
            arg.copy_(seen.detach())  # so that the caller sees whether they were changed
        if not isinstance(answer, Tensor):
            return answer
        if not answer.requires_grad:
            return {name: answer.detach(), "gradient": None}
        gradients = torch.autograd.grad(answer.sum(), own, allow_unused=True, materialize_grads=True)
        return {name: answer.detach(), "gradient": list(gradients) if leaves > 1 else gradients[0]}

    return call


def _sampled(made: Callable[..., Any], deed: str, p: Sequence[float], tiers: list[int], n: int, seed: int) -> Any:
    """Create a learner's sampler, use it once, 400 times or with a resume, and return what it drew."""
    one, twin, other = (made(p, seed + more) for more in (0, 0, 1))
    if deed == "once":
        drawn = one.sample(tiers, n)
        return drawn if drawn is None else [int(place) for place in drawn]

    def draws(sampler: Any, times: int = 3) -> list[list[int]]:
        return [[int(place) for place in sampler.sample(list(tiers), n)] for _ in range(times)]

    if deed == "often":
        return draws(one, 400)
    before = random.getstate(), torch.get_rng_state()
    found: dict[str, Any] = {"first": draws(one), "elsewhere": draws(other), "again": draws(twin)}
    state = one.state_dict()
    found |= {"following": draws(one), "between": draws(twin), "later": draws(twin)}
    other.load_state_dict(state)
    found["resumed"] = draws(other)
    return found | {"alone": before[0] == random.getstate() and before[1].equal(torch.get_rng_state())}


def _with_sampler(
    function: Callable[..., Any], step: int, tiers: Sequence[Sequence[int]], settings: Mapping[str, Any]
) -> Any:
    from rmt_mini import RMTConfig, TierSampler  # here, so that grading can withhold them where they are the answer

    config = RMTConfig(**settings)
    sampler = TierSampler(config.steps, config.tier_probs_early, config.tier_probs_late, seed=config.seed)
    return function(step, tiers, sampler, config)


def _seed_by_seed(function: Callable[..., Any], rewards: list[float], group_size: int, seeds: Sequence[int]) -> Any:
    """Call once for each seed; gives the answers, or None where one of them is."""
    answers = [function(rewards, group_size, seed) for seed in seeds]
    return None if any(answer is None for answer in answers) else answers


CALLS: Mapping[str, Callable[..., Any]] = {
    "TierSampler": _sampled,
    "kl_estimate": differentiated("estimate"),
    "rl_loss": differentiated("loss"),
    "rmt_loss": differentiated("loss", leaves=2),
    "next_token_loss": differentiated("loss"),
    "plan_step": _with_sampler,
    "shuffled_control": _seed_by_seed,
}


def call(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a learner's function as exercise ``name`` does."""
    return CALLS[name](function, *args) if name in CALLS else function(*args)
