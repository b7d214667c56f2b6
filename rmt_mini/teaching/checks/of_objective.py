"""Exercises on lesson 6, the dual objective: two losses on tokens that never overlap."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.method import objective
from rmt_mini.method.objective import ntp_loss, rmt_loss
from rmt_mini.teaching.checks.calls import differentiated
from rmt_mini.teaching.checks.cases import Case, Exercise, Raises, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_objective as wrong


def _total(value: float, by_rl: float, by_ntp: float) -> dict[str, Any]:
    return {"loss": torch.tensor(value), "gradient": [torch.tensor(by_rl), torch.tensor(by_ntp)]}


def _rmt_loss(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor(1.0), torch.tensor(2.0), 0.1, hint="give one number, a tensor without dimensions")
    half = "2 + 0.5 * 3 = 3.5; the gradient is 1 by the RL loss and 0.5 by the next-token loss"
    yield hand(torch.tensor(2.0), torch.tensor(3.0), 0.5, gives=_total(3.5, 1.0, 0.5), hint=half)
    papers = "2 + 0.1 * 5 = 2.5, the paper's lambda"
    yield hand(torch.tensor(2.0), torch.tensor(5.0), 0.1, gives=_total(2.5, 1.0, 0.1), hint=papers)
    for _ in range(30):
        losses = (torch.tensor(source.uniform(low, 3.0)) for low in (-1.0, 0.0))
        yield chance(*losses, source.choice([0.0, 0.1, 0.5, 1.0, 2.0]))
    without = "with weight 0 the loss is the RL loss alone, even beside a nan"
    yield edge(torch.tensor(2.0), torch.tensor(math.nan), 0.0, gives=_total(2.0, 1.0, 0.0), hint=without)
    negative = "a negative weight is a mistake: say so"
    yield edge(torch.tensor(2.0), torch.tensor(3.0), -0.1, gives=Raises(ValueError), hint=negative)


def ntp_mask(length: int, chosen: Sequence[int]) -> Tensor:
    """Mark the positions that next-token prediction trains on: see notebooks/solutions/06_dual_objective.ipynb."""
    return objective.ntp_mask(length, chosen)


def _mask(*places: int) -> Tensor:
    return torch.tensor(places).bool()


def _ntp_mask(source: random.Random) -> Iterator[Case]:
    yield shape(4, [2])
    worked = "of 5 tokens, 2 and 4 are chosen and 0 has nothing before it: 1 and 3 are left"
    yield hand(5, [2, 4], gives=_mask(0, 1, 0, 1, 0), hint=worked)
    yield hand(4, [1], gives=_mask(0, 0, 1, 1), hint="of 4 tokens, 1 is chosen and 0 has nothing before it")
    for _ in range(40):
        length = source.randint(2, 12)
        yield chance(length, source.sample(range(1, length), source.randint(0, length - 1)))
    yield edge(3, [], gives=_mask(0, 1, 1), hint="with no position chosen every token but the first takes the loss")
    yield edge(3, [1, 2], gives=_mask(0, 0, 0), hint="where all are chosen, none is left")
    yield edge(4, [2, 2], gives=_mask(0, 1, 0, 1), hint="a position may be named twice")
    yield edge(1, [], gives=_mask(0), hint="a document of one token has nothing to predict")
    for outside in (-1, 4, 0):
        hint = f"{outside} is no position of 4 tokens that can be chosen, from 1 to 3: raise ValueError"
        yield edge(4, [outside], gives=Raises(ValueError), hint=hint)


def next_token_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Compute a document's next-token loss where the mask allows: see notebooks/solutions/06_dual_objective.ipynb."""
    own = logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    return ntp_loss(own, mask[1:])


def _loss(value: float, gradient: list[list[float]]) -> dict[str, Tensor]:
    return {"loss": torch.tensor(value), "gradient": torch.tensor(gradient)}


def _next_token_loss(source: random.Random) -> Iterator[Case]:
    yield shape(torch.zeros(3, 4), torch.tensor([0, 1, 2]), _mask(0, 1, 1), hint="give a tensor without dimensions")
    # logits of log 3 and 0 mean probabilities 3/4 and 1/4
    logits, ids = torch.tensor([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0]]).log(), torch.tensor([0, 0, 1])
    first = "token 1 (id 0) is predicted by row 0, which gives it 3/4: the loss is -log(3/4), and only row 0 learns"
    one = _loss(-math.log(0.75), [[-0.25, 0.25], [0.0, 0.0], [0.0, 0.0]])
    yield hand(logits, ids, _mask(0, 1, 0), gives=one, hint=first)
    both = "tokens 1 and 2 both have 3/4, by rows 0 and 1: the mean of -log(3/4) twice; row 2 predicts nothing here"
    two = _loss(-math.log(0.75), [[-0.125, 0.125], [0.125, -0.125], [0.0, 0.0]])
    yield hand(logits, ids, _mask(0, 1, 1), gives=two, hint=both)
    for _ in range(30):
        length = source.randint(2, 8)
        drawn = torch.tensor([[source.uniform(-2, 2) for _ in range(5)] for _ in range(length)])
        tokens = torch.tensor([source.randrange(5) for _ in range(length)])
        yield chance(drawn, tokens, _mask(0, *(source.random() < 0.7 for _ in range(length - 1))))
    nothing = _loss(0.0, [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    empty = "without a masked token the loss is a zero, and it has a graph, so that backward() runs and adds nothing"
    yield edge(logits, ids, _mask(0, 0, 0), gives=nothing, hint=empty)
    alone = "a document of one token predicts nothing: its loss is a zero with a graph"
    yield edge(logits[:1], ids[:1], _mask(0), gives=_loss(0.0, [[0.0, 0.0]]), hint=alone)


def who_learns(length: int, chosen: Sequence[int], branch: Mapping[str, int], closed: bool) -> list[str]:
    """Say of each token which loss trains it: see notebooks/solutions/06_dual_objective.ipynb."""
    trunk = ["NTP" if free else "none" for free in ntp_mask(length, chosen).tolist()]
    parts = [("opening", 0), ("thought", branch["thought"]), ("closing", int(closed)), ("cue", 0)]
    parts.append(("answer", branch["answer"]))
    return trunk + [
        mark for name, own in parts for mark in ["RL"] * own + ["none"] * (branch[name] - own)
    ]  # of each part, the first ``own`` tokens were sampled


def _branch(opening: int, thought: int, closing: int, cue: int, answer: int) -> dict[str, int]:
    return {"opening": opening, "thought": thought, "closing": closing, "cue": cue, "answer": answer}


def _who_learns(source: random.Random) -> Iterator[Case]:
    yield shape(3, [1], _branch(1, 1, 1, 1, 1), True, hint="give a list of one string for each token, trunk first")
    trunk = ["none", "NTP", "none", "NTP"]
    closed = "a thought that closed itself: the model chose its tokens, the first closing token and the answer"
    marks = [*trunk, "none", "RL", "RL", "RL", "none", "none", "RL"]
    yield hand(4, [2], _branch(1, 2, 2, 1, 1), True, gives=marks, hint=closed)
    cut = "the environment closed this thought: no token of the closing tag was the model's choice"
    marks = [*trunk, "none", "RL", "RL", "none", "none", "none", "RL"]
    yield hand(4, [2], _branch(1, 2, 2, 1, 1), False, gives=marks, hint=cut)
    for _ in range(40):
        length = source.randint(2, 8)
        chosen = source.sample(range(1, length), source.randint(1, length - 1))
        branch = _branch(*(source.randint(low, 3) for low in (1, 0, 1, 0, 1)))
        yield chance(length, chosen, branch, source.random() < 0.5)
    empty = "a thought of no tokens that closed at once: the closing token is all that it learns from, with the answer"
    marks = ["none", "none", "none", "RL", "RL"]
    yield edge(2, [1], _branch(1, 0, 1, 0, 1), True, gives=marks, hint=empty)


def weigh_gradients(rl: Sequence[Tensor], ntp: Sequence[Tensor], ntp_weight: float) -> dict[str, float]:
    """Measure the two parts of a step's gradient: see notebooks/solutions/06_dual_objective.ipynb."""
    one, other = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (rl, ntp))
    first, second = one.norm().item(), ntp_weight * other.norm().item()
    both = first * second
    cosine = ntp_weight * (one @ other).item() / both if both else math.nan
    return {"rl": first, "ntp": second, "cosine": cosine}


def _weigh_gradients(source: random.Random) -> Iterator[Case]:
    one = torch.ones(2)
    yield shape([one], [one], 0.1, hint="give a dict of three numbers")
    rl, ntp = [torch.tensor([3.0]), torch.tensor([[0.0], [4.0]])], [torch.tensor([0.0]), torch.tensor([[0.0], [10.0]])]
    worked = {"rl": 5.0, "ntp": 1.0, "cosine": 0.8}
    hint = "the root of 9 + 16 is 5, a tenth of 10 is 1, and the product 4 * 10 over 5 * 10 is 0.8"
    yield hand(rl, ntp, 0.1, gives=worked, hint=hint)
    for _ in range(30):
        shapes = [(source.randint(1, 3), source.randint(1, 3)) for _ in range(source.randint(1, 4))]
        drawn: list[list[Tensor]] = [
            [torch.tensor([[source.gauss(0, 1) for _ in range(n)] for _ in range(m)]) for m, n in shapes]
            for _ in range(2)
        ]
        yield chance(*drawn, source.choice([0.1, 0.5, 2.0]))
    away = "two gradients that point away from each other have the cosine -1"
    yield edge([one], [-2 * one], 0.5, gives={"rl": 2**0.5, "ntp": 2**0.5, "cosine": -1.0}, hint=away)
    none = "a gradient of zero has no direction, so there is no cosine: nan"
    yield edge([one], [0 * one], 0.5, gives={"rl": 2**0.5, "ntp": 0.0, "cosine": math.nan}, hint=none)


EXERCISES = (
    Exercise(6, 1, rmt_loss, _rmt_loss, wrong.RMT_LOSS, differentiated("loss", leaves=2)),
    Exercise(6, 1, ntp_mask, _ntp_mask, wrong.NTP_MASK),
    Exercise(6, 3, next_token_loss, _next_token_loss, wrong.NEXT_TOKEN_LOSS, differentiated("loss")),
    Exercise(6, 2, who_learns, _who_learns, wrong.WHO_LEARNS),
    Exercise(6, 2, weigh_gradients, _weigh_gradients, wrong.WEIGH_GRADIENTS),
)
