import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import Chat, Continuation
from rmt_mini.engine.rollout import Asking, lay_out, roll_out, rollout_logprobs
from rmt_mini.engine.tree import DocumentTree
from rmt_mini.records import Position, Rollout
from tests.engine.plain_twin import naive_roll_out, next_logits, read_and_decided, twin_logprobs
from tests.fakes import SHAPES, BareFormat, make_tiny_policy, widen

TEXTS = ["Sum: 12 + 30 = 42.", "Für n = 1 gilt es; n = 2 folgt."]
FORMS = {"continuation": Continuation, "chat": Chat}


def set_up(policy: Policy, form: Any, texts: list[str]) -> tuple[list[list[int]], Any, list[Position]]:
    """Documents as ids, read; and the first asked-for, a middle and the last position of each."""
    documents = [form.trunk(text) for text in texts]
    ids = [ids for ids, _ in documents]
    with torch.no_grad():
        trunks = policy.tree.read(ids)
    positions = [
        Position(n, index, 0, 0.0)
        for n, (document, first) in enumerate(documents)
        for index in (first, (first + len(document)) // 2, len(document) - 1)
    ]
    return ids, trunks, positions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def closing_policy(shape: str, dtype: torch.dtype = torch.float32, factor: float = 3.0, **options: Any) -> Policy:
    """A policy that closes its thoughts now and then: the logit of '<', the tag's first byte, swings widely."""
    return widen(make_tiny_policy(shape, dtype, **options), ord("<"), factor)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("shape", "forced"), [*((shape, False) for shape in SHAPES), ("llama", True)])
def test_greedy_rollouts_are_those_of_a_naive_loop(shape: str, name: str, forced: bool) -> None:
    policy = closing_policy(shape, factor=2.0 if shape == "qwen3" else 3.0)
    form = FORMS[name](policy.tokenizer)
    ids, trunks, positions = set_up(policy, form, TEXTS)
    asking = Asking([None, 3, 12, 4, None, 100], [5, 6, 0, 8, 1, 12], temperature=0, forced=forced)
    ours = roll_out(policy, form, trunks, positions, 1, asking, generator())
    theirs = naive_roll_out(policy.model, form, ids, positions, asking)
    for one, other in zip(ours, theirs, strict=True):
        assert dataclasses.replace(one, logprobs=()) == other
        assert len(one.logprobs) == len(one.thought) + one.closed + len(one.answer)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("shape", "temperature"), zip(SHAPES, (0.7, 1.0, 1.5), strict=True))
def test_logprobs_at_sampling_are_those_of_training(shape: str, name: str, temperature: float) -> None:
    policy = closing_policy(shape)
    form = FORMS[name](policy.tokenizer)
    ids, trunks, positions = set_up(policy, form, TEXTS)
    asking = Asking([None, 3, 12, 4, None, 100], [5, 6, 0, 8, 1, 12], temperature)
    rollouts = roll_out(policy, form, trunks, positions, 4, asking, generator())
    assert {rollout.closed for rollout in rollouts} == {True, False}
    with torch.no_grad():
        logprobs, mask = rollout_logprobs(policy, form, trunks, rollouts, temperature)
        plain = [twin_logprobs(policy.model, form, ids[r.position.trunk], r, temperature) for r in rollouts]
    assert mask.sum(1).tolist() == [len(rollout.logprobs) for rollout in rollouts]
    assert (logprobs[~mask] == 0).all()
    sampled = torch.tensor([value for rollout in rollouts for value in rollout.logprobs])
    torch.testing.assert_close(logprobs[mask], sampled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logprobs[mask], torch.cat(plain), rtol=1e-4, atol=1e-4)


def test_what_a_row_draws_does_not_hang_on_the_others() -> None:
    policy = closing_policy("qwen2", torch.float64)
    form = Continuation(policy.tokenizer)
    _, trunks, positions = set_up(policy, form, TEXTS[:1])
    first, then = (
        roll_out(policy, form, trunks, positions, 3, Asking([None] * 3, [9, cap, cap]), generator(1)) for cap in (9, 2)
    )
    assert [one.thought for one in first[:3]] == [one.thought for one in then[:3]]
    assert max(one.length for one in first[3:]) > 2


def test_the_answer_may_have_its_own_temperature() -> None:
    policy = closing_policy("qwen3")
    form = Continuation(policy.tokenizer)
    ids, trunks, positions = set_up(policy, form, TEXTS)
    asking = Asking([None] * 6, [4] * 6, temperature=1.0, answer_temperature=0)
    rollouts = roll_out(policy, form, trunks, positions, 4, asking, generator())
    assert len({rollout.thought for rollout in rollouts}) > 12
    for rollout in rollouts:
        tokens, places = read_and_decided(form, ids[rollout.position.trunk], rollout)
        with torch.no_grad():
            assert rollout.answer == (int(next_logits(policy.model, tokens[: places[-1]])[-1].argmax()),)


# --- The distribution --------------------------------------------------------------------------------------------


def every_outcome(
    policy: Policy, form: Any, trunk: list[int], index: int, cap: int, temperature: float
) -> dict[tuple[Any, ...], float]:
    """Probability of each (thought, closed, answer), by the plain path, term by term."""
    vocabulary = range(len(policy.head.weight))
    close = form.close[0]
    before = [*trunk[:index], *form.opening(None)]

    def after(tokens: list[int]) -> list[float]:
        with torch.no_grad():
            return torch.softmax(next_logits(policy.model, tokens)[-1].double() / temperature, -1).tolist()

    thoughts: dict[tuple[tuple[int, ...], bool], float] = {}
    growing = {(): 1.0}
    for _ in range(cap):
        longer = {}
        for thought, probability in growing.items():
            for token, share in zip(vocabulary, after([*before, *thought]), strict=True):
                if token == close:
                    thoughts[thought, True] = probability * share
                else:
                    longer[*thought, token] = probability * share
        growing = longer
    thoughts |= {(thought, False): probability for thought, probability in growing.items()}
    outcomes = {}
    for (thought, closed), probability in thoughts.items():
        answers = after([*before, *thought, *form.close, *form.cue(trunk, index)])
        for token, share in zip(vocabulary, answers, strict=True):
            outcomes[thought, closed, token] = probability * share
    return outcomes


@pytest.mark.parametrize(("shape", "temperature"), [("llama", 1.0), ("qwen3", 0.6)])
def test_rollouts_follow_the_exact_distribution(shape: str, temperature: float) -> None:
    # seven tokens and a cap of 2: 1 + 6 closed thoughts, 36 that ran into the cap, 7 answers each
    policy, form = make_tiny_policy(shape, vocabulary=7, seed=1), BareFormat()
    assert isinstance(policy.tree, DocumentTree)
    trunk, places, group = [0, 2, 1, 5, 4, 0, 2], (2, 6), 4000
    with torch.no_grad():
        trunks = policy.tree.read([trunk])
        positions = [Position(0, index, 0, 0.0) for index in places]
        asking = Asking([None, None], [2, 2], temperature)
        rollouts = roll_out(policy, form, trunks, positions, group, asking, generator(2))
    for n, index in enumerate(places):
        exact = every_outcome(policy, form, trunk, index, 2, temperature)
        assert sum(exact.values()) == pytest.approx(1)
        assert len(exact) == 43 * 7
        seen = Counter((r.thought, r.closed, *r.answer) for r in rollouts[n * group : (n + 1) * group])
        assert set(seen) <= set(exact)
        assert goodness_of_fit(seen, exact, group) > 0.001
        for rollout in rollouts[n * group : n * group + 50]:
            chance = exact[rollout.thought, rollout.closed, *rollout.answer]
            assert torch.tensor(rollout.logprobs).sum().exp().item() == pytest.approx(chance, rel=1e-4)


def goodness_of_fit(seen: Any, exact: Any, count: int) -> float:
    """p-value of a chi-square test; outcomes expected fewer than five times are taken together."""
    rare = [outcome for outcome in exact if exact[outcome] * count < 5]
    groups = [[outcome] for outcome in exact if outcome not in rare] + ([rare] if rare else [])
    observed = [sum(seen[outcome] for outcome in group) for group in groups]
    expected = [sum(exact[outcome] for outcome in group) for group in groups]
    return float(chisquare(observed, [share * count / sum(expected) for share in expected]).pvalue)


# --- Laying out --------------------------------------------------------------------------------------------------

TRUNK = [0, 7, 8, 9]
AT = Position(0, 3, 0, 0.0)


READ = [1, 6, 7, 3, 4, 5, 7, 8]  # opening 1, thought 6 7, tag 3 4, cue 5 7 8


@pytest.mark.parametrize(
    ("rollout", "tokens", "thinking", "answering", "places", "targets"),
    [
        # the answer's last token predicts nothing and is not read
        (Rollout(AT, None, (6, 7), True, (9,), ()), READ, [0, 1, 2], [7], [0, 1, 2, 7], [6, 7, 3, 9]),
        # closed by the environment: the tag is there all the same, but is nobody's decision
        (Rollout(AT, None, (6, 7), False, (9,), ()), READ, [0, 1, 2], [7], [0, 1, 7], [6, 7, 9]),
        # no thought at all; a stated budget makes the opening 1 2
        (Rollout(AT, 5, (), False, (9,), ()), [1, 2, 3, 4, 5, 7, 8], [1], [6], [6], [9]),
        (Rollout(AT, 5, (), True, (9,), ()), [1, 2, 3, 4, 5, 7, 8], [1], [6], [1, 6], [3, 9]),
        (Rollout(AT, None, (6,), True, (9, 8, 2), ()), [1, 6, 3, 4, 5, 7, 8, 9, 8], [0, 1], [6, 7, 8], [0, 1, 6, 7, 8],
         [6, 3, 9, 8, 2]),
    ],
)  # fmt: skip
def test_layout_by_hand(rollout: Rollout, tokens, thinking, answering, places, targets) -> None:
    form = BareFormat(answer_limit=3)
    branch = lay_out(form, TRUNK, rollout)
    assert (branch.tokens, [*branch.thinking], [*branch.answering]) == (tokens, thinking, answering)
    assert branch.decisions == (places, targets)
