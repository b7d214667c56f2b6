"""What the cases of ``teaching/exercises/*.yaml`` may name: random arguments, a function for each exercise, and values.

A function draws the arguments of one call. They are such that every mutant of the exercise fails one case or another.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch
from torch import Tensor

Args = tuple[Any, ...]
T, inf, nan = torch.tensor, math.inf, math.nan

EARLY, LATE = (0.4, 0.3, 0.3), (0.1, 0.4, 0.5)
CLOSING = [1, 2, 3]
SEEDS = [0, 1, 2, 3, 4, 5, 6, 7, 0]  # the last asks whether the same seed means the same again
QUARTERS = T([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0]]).log()  # logits of probabilities 3/4 and 1/4
PLAN: dict[str, Any] = {
    "steps": 4,
    "budget_start": 8,
    "budget_min": 1,
    "budget_decay": 0.25,
    "positions_per_document": 1,
    "tier_probs_early": (1.0, 0.0, 0.0),
    "tier_probs_late": (0.0, 0.0, 1.0),
}
PIECES = ("a", "b", "é", " ", "ï", "\N{GRINNING FACE}", " a", "ab")
BOXES = (r"\boxed{", r"\boxed{", "}", "}", "}", "{", "x", "7", " ", "</think>")


# Values


def logs(*probabilities: float) -> Tensor:
    return T(probabilities).log()


def mask(*rows: str) -> Tensor:
    made = T([[mark == "1" for mark in row] for row in rows])
    return made if len(rows) > 1 else made[0]


def branch(opening: int, thought: int, closing: int, cue: int, answer: int) -> dict[str, int]:
    return {"opening": opening, "thought": thought, "closing": closing, "cue": cue, "answer": answer}


def drawn(*by_tier: int) -> dict[str, Any]:
    """Return what a sampler that is right gives for this many positions of each tier."""
    return {
        "positions": sum(by_tier),
        "all of them exist": True,
        "none comes twice": True,
        "easy, medium, hard": list(by_tier),
    }


def rollout(
    text: list[int], thought: list[int], closed: bool, cue: list[int], answer: list[int]
) -> tuple[list[int], list[bool]]:
    """Return tokens, and for each whether the model wrote it; the closing tag is token 1."""
    parts = [(text, False), (thought, True), ([1], closed), (cue, False), (answer, True)]
    return [token for part, _ in parts for token in part], [own for part, own in parts for _ in part]


def one_token(ratio: float, advantage: float) -> Args:
    """Return the arguments of the RL loss for a token whose old probability is one half."""
    return T([[math.log(ratio / 2)]]), T([advantage]), T([[True]]), T([[math.log(0.5)]]), 0.2


def three_tokens(pad: float, sampled: bool = True) -> Args:
    """Return the arguments of the RL loss for two rollouts of two tokens and of one, at ratio 1."""
    now = T([[-0.5, -0.5], [-0.5, pad]])
    return now, T([3.0, -3.0]), T([[True, True], [True, False]]) & sampled, torch.full((2, 2), -0.5), 0.2


# Random arguments


def _ints(source: Random, low: int, high: int, count: int) -> list[int]:
    return [source.randint(low, high) for _ in range(count)]


def quarters(source: Random) -> list[float]:
    return [one / 4 for one in _ints(source, 0, 8, source.randint(1, 8))]


def _mix(source: Random) -> tuple[float, ...]:
    parts = _ints(source, 1, 9, 3)
    return tuple(part / sum(parts) for part in parts)


def match_reward(source: Random) -> Args:
    truth, other = _ints(source, 1, 4, source.randint(1, 3)), _ints(source, 1, 4, source.randint(0, 4))
    return source.choice([truth, truth + other, truth[::-1], truth[:-1], other]), truth


def prefix_match_reward(source: Random) -> Args:
    tokens = [source.choice(PIECES) + source.choice(["", *PIECES]) for _ in range(source.randint(1, 4))]
    boundaries = [len("".join(tokens[: count + 1]).encode()) for count in range(len(tokens))]
    answer = "".join(tokens[: source.randint(0, len(tokens))]) + source.choice(["", "", "", *PIECES])
    return answer[source.choice([0, 0, 0, 1]) :], "".join(tokens), boundaries


def boxed_answer(source: Random) -> Args:
    thought, answer = ("".join(source.choices(BOXES, k=source.randint(0, most))) for most in (5, 9))
    return (f"{thought}</think>{answer}",)


def rollout_reward(source: Random) -> Args:
    text = source.choices([1, 5, 6, 7, 8, 9], k=source.randint(1, 5))
    thought = _ints(source, 5, 9, source.randint(1, 5))
    answer = source.choice([[9], [9], [8], [7], [8, 9], [9, 8]])
    made = rollout(text, thought, source.random() < 0.6, text[-source.randint(1, 3) :], answer)
    return *made, 1, 9, source.randint(1, 6), source.choice([0.1, 0.25, 0.5, 0.75])


def against_luck(source: Random) -> Args:
    truths = _ints(source, 1, 5, source.randint(1, 12))
    answers = [truth if source.random() < 0.5 else source.randint(1, 5) for truth in truths]
    training = _ints(source, 1, 5, source.randint(3, 12))
    return answers, truths, training + [source.randint(1, 5)] * (len(training) + 1)  # so the commonest has no tie


def token_entropy(source: Random) -> Args:
    size = _ints(source, 1, 3, source.randint(0, 2))
    return (T([source.uniform(-4, 4) for _ in range(math.prod(size) * 6)]).reshape(*size, 6),)


def assign_tiers(source: Random) -> Args:
    low, high = sorted(source.randint(0, 8) / 4 for _ in range(2))
    values = [source.randint(0, 9) / 4 for _ in range(source.randint(1, 4) * 2)]
    return T(values).reshape(2, -1), (low, high)


def loss_by_tier(source: Random) -> Args:
    tiers = [0, 1, 2, *_ints(source, 0, 2, source.randint(0, 9))]
    source.shuffle(tiers)
    return T([source.uniform(0, 5) for _ in tiers]), T(tiers)


def budget_at_step(source: Random) -> Args:
    total, minimum = source.randint(1, 200), source.randint(1, 10)
    start, decay = minimum + source.randint(0, 100), source.uniform(0.05, 1.0)
    return source.randint(0, total), total, start, minimum, decay


def budget_adherence(source: Random) -> Args:
    lengths = _ints(source, 0, 16, source.randint(1, 12))
    return lengths, [source.random() < 0.7 for _ in lengths], source.randint(1, 12)


def tier_probabilities(source: Random) -> Args:
    total, start, end = source.randint(1, 200), source.randint(0, 4) / 10, source.randint(5, 10) / 10
    return source.randint(0, total), total, _mix(source), _mix(source), start, end


def redistribute(source: Random) -> Args:
    left = source.choices([0, 1, 3, 8], k=3)
    left[source.randrange(3)] = 2
    return list(_mix(source)), left


def TierSampler(source: Random) -> Args:
    tiers = _ints(source, 0, 2, source.randint(3, 10))
    tier = source.choice(tiers)
    n = source.choice([source.randint(1, tiers.count(tier)), len(tiers)])
    return "draw", tuple(float(one == tier) for one in range(3)), tiers, n, source.randint(0, 99)


def deviations(source: Random) -> Args:
    steps = source.randint(2, 6)
    return [_ints(source, 0, 9, 3) for _ in range(steps)], [_mix(source) for _ in range(steps)]


def kl_estimate(source: Random) -> Args:
    count = source.randint(1, 6)
    return tuple(logs(*(source.uniform(0.02, 1.0) for _ in range(count))) for _ in range(2))


def group_advantages(source: Random) -> Args:
    size, count = source.randint(2, 8), source.randint(1, 5)
    rewards = [source.choice([0.0, 0.3, 1.0, source.random()]) for _ in range(size * count)]
    return T(rewards), size, source.choice([1e-4, 1e-2])


def rl_loss(source: Random) -> Args:
    rollouts, longest = source.randint(1, 4), source.randint(1, 5)
    old = T([[-source.uniform(0.1, 2.0) for _ in range(longest)] for _ in range(rollouts)])
    moved = T([[source.uniform(-0.6, 0.6) for _ in range(longest)] for _ in range(rollouts)])
    advantages = T([source.uniform(-2.0, 2.0) for _ in range(rollouts)])
    own = torch.arange(longest) < T(_ints(source, 1, longest, rollouts))[:, None]
    return old + moved, advantages, own, old, source.choice([0.1, 0.2])


def signal_share(source: Random) -> Args:
    size, count = source.randint(2, 8), source.randint(1, 8)
    rates = source.choices([0.0, 0.1, 0.5, 1.0], k=count)
    return T([float(source.random() < rate) for rate in rates for _ in range(size)]), size


def ntp_mask(source: Random) -> Args:
    length = source.randint(2, 12)
    return length, source.sample(range(1, length), source.randint(0, length - 1))


def next_token_loss(source: Random) -> Args:
    length = source.randint(2, 8)
    logits = T([[source.uniform(-2, 2) for _ in range(5)] for _ in range(length)])
    kept = T([False, *(source.random() < 0.7 for _ in range(length - 1))])
    return logits, T(_ints(source, 0, 4, length)), kept


def who_learns(source: Random) -> Args:
    length = source.randint(2, 8)
    chosen = source.sample(range(1, length), source.randint(1, length - 1))
    return length, chosen, branch(*(source.randint(low, 3) for low in (1, 0, 1, 0, 1))), source.random() < 0.5


def weigh_gradients(source: Random) -> Args:
    shapes = [(source.randint(1, 3), source.randint(1, 3)) for _ in range(source.randint(1, 4))]
    parts = [[T([[source.gauss(0, 1) for _ in range(n)] for _ in range(m)]) for m, n in shapes] for _ in range(2)]
    return *parts, source.choice([0.1, 0.5, 2.0])


def tree(source: Random) -> Args:
    trunk = source.randint(2, 6)
    return trunk, [(source.randint(1, trunk - 1), source.randint(1, 4)) for _ in range(source.randint(1, 4))]


def count_tokens(source: Random) -> Args:
    document = source.randint(2, 200)
    positions = _ints(source, 1, document - 1, source.randint(1, 5))
    return document, positions, source.randint(1, 8), source.randint(1, 30)


def merge(source: Random) -> Args:
    size = source.randint(1, 4)
    trunk, own = (T([source.uniform(-2, 2) for _ in range(size)]) for _ in range(2))
    return trunk, source.uniform(-3, 3), own, source.uniform(-3, 3)


def relative_gap(source: Random) -> Args:
    sizes = _ints(source, 1, 4, source.randint(1, 3))
    theirs = [T([source.gauss(0, 2) for _ in range(size)]) for size in sizes]
    return [other + source.gauss(0, 0.1) * other.flip(0) + 0.01 for other in theirs], theirs


def judge_step(source: Random) -> Args:
    size, truths = source.randint(2, 4), _ints(source, 0, 2, source.randint(2, 3))
    rollouts = [
        {"answer": source.randrange(3), "truth": truth, "length": source.randint(0, 12)}
        for truth in truths
        for _ in range(size)
    ]
    return rollouts, size, source.randint(2, 6), source.choice([0.1, 0.3])


def plan_step(source: Random) -> Args:
    steps = source.randint(2, 20)
    tiers = [_ints(source, 0, 2, source.randint(4, 9)) for _ in range(source.randint(1, 3))]
    settings = {"steps": steps, "seed": source.randint(0, 99), "positions_per_document": source.randint(1, 3)}
    mixed = {"budget_start": source.randint(4, 30), "tier_probs_early": (0.5, 0.3, 0.2)}
    return source.randint(0, steps), tiers, PLAN | settings | mixed


def paired_interval(source: Random) -> Args:
    by_run, by_document = ([source.gauss(0.1, 0.1) for _ in range(source.randint(*n))] for n in ((3, 5), (8, 14)))
    levels = [source.gauss(0.5, 0.3) for _ in by_document]
    gains = [[run + document + source.gauss(0, 0.02) for document in by_document] for run in by_run]
    ours = [[level + gain for level, gain in zip(levels, row, strict=True)] for row in gains]
    return ours, [levels] * len(by_run), 2000, source.randint(0, 99)
