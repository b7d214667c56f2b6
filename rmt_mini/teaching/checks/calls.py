"""What cases of exercises need besides plain values: names in expressions, other ways to call, judges of answers.

``difference`` says in a few words how an answer differs from what was expected.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.method import TierSampler, group_advantages

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


CALLS_OFTEN = 400  # of sample, two positions each
FAR = 5.0  # standard deviations that no right sampler strays
CLOSE = 0.06  # of an interval's width: how far an end may be from ours, which draws otherwise


def mask(*rows: str) -> Tensor:
    """Return truth values, one for each digit; a single row has one dimension."""
    made = torch.tensor([[mark == "1" for mark in row] for row in rows])
    return made if len(rows) > 1 else made[0]


def rollout(
    text: list[int], thought: list[int], closed: bool, cue: list[int], answer: list[int]
) -> tuple[list[int], list[bool]]:
    """Return tokens, and for each whether the model wrote it; the closing tag is token 1."""
    parts = [(text, False), (thought, True), ([1], closed), (cue, False), (answer, True)]
    return [token for part, _ in parts for token in part], [own for part, own in parts for _ in part]


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
    ours = {"mask": mask, "rollout": rollout, "ints": ints, "floats": floats, "mix": mix}
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


def _sampled(
    made: Callable[..., Any], deed: str, probabilities: Sequence[float], tiers: list[int], n: int, seed: int
) -> dict[str, Any] | None:
    """Create a learner's sampler, use it, and return what holds for every right one, whatever it draws."""
    if deed == "resume":
        return _resumed(made, probabilities, tiers, n, seed)
    sampler = made(probabilities, seed)
    if deed == "often":
        return _often([sampler.sample(list(tiers), n) for _ in range(CALLS_OFTEN)], probabilities, tiers)
    drawn = sampler.sample(tiers, n)
    if drawn is None:
        return None
    places = [int(place) for place in drawn]
    inside = [place for place in places if 0 <= place < len(tiers)]
    return {
        "all of them exist": len(inside) == len(places),
        "none comes twice": len(set(places)) == len(places),
        "easy, medium, hard": [sum(tiers[place] == tier for place in inside) for tier in range(3)],
    }


def _resumed(
    made: Callable[..., Any], probabilities: Sequence[float], tiers: list[int], n: int, seed: int
) -> dict[str, Any]:
    def draws(sampler: Any) -> list[list[int]]:
        return [[int(place) for place in sampler.sample(list(tiers), n)] for _ in range(3)]

    before = random.getstate(), torch.get_rng_state()
    one, twin, other = made(probabilities, seed), made(probabilities, seed), made(probabilities, seed + 1)
    first, elsewhere, again = draws(one), draws(other), draws(twin)
    state = one.state_dict()
    following, _, later = draws(one), draws(twin), draws(twin)
    other.load_state_dict(state)
    names = {str(later): "later ones", str(first): "the first ones again", str(following): "the next ones"}
    return {
        "same draws from the same seed": first == again,
        "other draws from another seed": first != elsewhere,
        "draws after load_state_dict": names.get(str(draws(other)), "others"),
        "global generators left alone": before[0] == random.getstate() and before[1].equal(torch.get_rng_state()),
    }


def _often(calls: Sequence[Sequence[int]], probabilities: Sequence[float], tiers: Sequence[int]) -> dict[str, bool]:
    """Compare how often tiers and positions came in many calls of two positions with what was asked for."""

    def near(count: float, trials: int, p: float) -> bool:
        return abs(count - trials * p) <= FAR * math.sqrt(trials * p * (1 - p)) + 1e-9

    places = Counter(int(place) for call in calls for place in call)
    by_tier = [sum(places[place] for place, one in enumerate(tiers) if one == tier) for tier in range(3)]
    mixed = sum(tiers[call[0]] != tiers[call[1]] for call in calls)
    return {
        "tiers come as often as asked": all(map(near, by_tier, [2 * len(calls)] * 3, probabilities)),
        "positions of a tier come alike": all(
            near(places[place], by_tier[tier], 1 / tiers.count(tier)) for place, tier in enumerate(tiers)
        ),
        "each draw of a call has a tier of its own": near(mixed, len(calls), 1 - sum(p * p for p in probabilities)),
    }


def _sampler_call(deed: str, probabilities: Sequence[float], tiers: Sequence[int], n: int, seed: int) -> str:
    called = f"TierSampler({tuple(round(p, 4) for p in probabilities)}, {seed}).sample({tiers}, {n})"
    return called + {"draw": "", "resume": ", three times and resumed,", "often": f", {CALLS_OFTEN} times,"}[deed]


def _with_sampler(
    function: Callable[..., Any], step: int, tiers: Sequence[Sequence[int]], settings: Mapping[str, Any]
) -> Any:
    config = RMTConfig(**settings)
    sampler = TierSampler(config.steps, config.tier_probs_early, config.tier_probs_late, seed=config.seed)
    return function(step, tiers, sampler, config)


def _seed_by_seed(function: Callable[..., Any], rewards: list[float], group_size: int, seeds: Sequence[int]) -> Any:
    """Call once for each seed; gives the answers, or None where one of them is."""
    answers = [function(rewards, group_size, seed) for seed in seeds]
    return None if any(answer is None for answer in answers) else answers


def _control(answers: Any, rewards: Sequence[float], group_size: int, seeds: Sequence[int]) -> str:
    """Expect permutations of distinct rewards that depend on the seed, mix the groups, and fit their advantages."""
    for seed, answer in zip(seeds, answers, strict=True):
        if wrong := difference(answer, {"rewards": rewards, "advantages": rewards}, shape_only=True):
            return wrong
        if sorted(answer["rewards"]) != sorted(rewards):
            return f"has rewards {short(answer['rewards'])} for seed {seed}, which are not those that were given"
        own = group_advantages(torch.tensor(answer["rewards"]).double(), group_size).tolist()
        if wrong := difference(answer["advantages"], own):
            return f"for seed {seed} has advantages that do not fit its rewards: its list {wrong}"
    if answers[0] != answers[-1]:
        return "is another the second time that it gets the same seed"
    permuted = [answer["rewards"] for answer in answers]
    if all(one == permuted[0] for one in permuted):
        return "is the same for every seed"
    home = {reward: place // group_size for place, reward in enumerate(rewards)}
    groups = [[home[reward] for reward in one] for one in permuted]
    if all(one == sorted(one) for one in groups):
        return "leaves the rewards of each group among themselves, for every seed"
    if all(len(set(one[at : at + group_size])) == 1 for one in groups for at in range(0, len(one), group_size)):
        return "keeps the rewards of a group together, for every seed"
    return ""


def _interval(answer: Any, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], *_: int) -> str:
    """Expect the interval of both tables, wherever its own draws put its ends."""
    table, source = np.array(ours) - np.array(theirs), np.random.default_rng(0)
    times = [source.multinomial(n, np.full(n, 1 / n), 20_000) / n for n in table.shape]
    low, high = np.percentile(np.einsum("br,bd,rd->b", *times, table, optimize=True), [2.5, 97.5])
    wanted = {"difference": float(table.mean()), "low": float(low), "high": float(high)}
    if wrong := difference(answer, wanted, shape_only=True):
        return wrong
    for name, value in wanted.items():
        near, about = (1e-4, "") if name == "difference" else (CLOSE * (high - low), "about ")
        if not abs(answer[name] - value) <= near:
            return f"at [{name}] is {short(float(answer[name]))} and should be {about}{short(value)}"
    return ""


CALLS: Mapping[str, Callable[..., Any]] = {
    "TierSampler": _sampled,
    "kl_estimate": differentiated("estimate"),
    "rl_loss": differentiated("loss"),
    "rmt_loss": differentiated("loss", leaves=2),
    "next_token_loss": differentiated("loss"),
    "plan_step": _with_sampler,
    "shuffled_control": _seed_by_seed,
}
WRITTEN: Mapping[str, Callable[..., str]] = {"TierSampler": _sampler_call}  # how a call is written in a message
JUDGES: Mapping[str, Callable[..., str]] = {"control": _control, "interval": _interval}
