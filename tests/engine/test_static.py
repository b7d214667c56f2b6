"""Thoughts sampled in steps of fixed shapes are those of the dynamic path; a captured step is an uncaptured one."""

import gc
import logging
import weakref
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from rmt_mini.engine import static
from rmt_mini.engine.model import make_policy
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.records import Rollout
from tests.engine.test_rollout import FORMS, TEXTS, closing_policy, generator, set_up

BUDGETS, CAPS = [None, 3, 12, 4, None, 100], [5, 6, 0, 8, 1, 12]


def assert_same(ours: list[Rollout], theirs: list[Rollout], rel: float = 1e-9) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.thought, one.closed, one.answer) == (other.thought, other.closed, other.answer)
        assert one.logprobs == pytest.approx(other.logprobs, rel=rel)


def rollouts(policy: Any, form: Any, asking: Asking, in_steps: bool | None, seed: int = 5, size: int = 4) -> Any:
    _, trunks, positions = set_up(policy, form, TEXTS)
    return roll_out(policy, form, trunks, positions, size, asking, generator(seed), in_steps)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("stride", [1, 5, 100])
def test_steps_sample_what_the_dynamic_path_does(stride: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "STRIDE", stride)
    policy = closing_policy("llama", torch.float64)
    form = FORMS[name](policy.tokenizer)
    asking = Asking(BUDGETS, CAPS)
    ours = rollouts(policy, form, asking, in_steps=True, size=9)
    assert policy.tree.steps
    assert {one.closed for one in ours} == {True, False}
    assert len({one.length for one in ours if one.closed}) > 2  # closed at different places of a stride
    assert_same(ours, rollouts(policy, form, asking, in_steps=False, size=9))


@pytest.mark.parametrize(
    "asking",
    [
        Asking([8] * 6, [5] * 6, forced=True),
        Asking([8] * 6, [9, 9, 3, 9, 1, 9], temperature=0.0),
        Asking([None] * 6, [12] * 6, temperature=0.7, answer_temperature=0.0),
        Asking([4] * 6, [0] * 6),
    ],
    ids=["forced", "greedy", "cooler", "without thoughts"],
)
def test_so_do_steps_of_float32_on_our_layers(asking: Asking) -> None:
    policy = closing_policy("qwen3")
    assert policy.tree.layers is not None
    form = FORMS["continuation"](policy.tokenizer)
    assert_same(*(rollouts(policy, form, asking, in_steps) for in_steps in (True, False)), rel=1e-4)


def test_a_step_that_is_not_loaded_reads_a_position_that_every_model_has() -> None:
    """It is tried out and captured like that, and its rounded trunk may be longer than a model's positions."""
    policy = closing_policy("qwen3")
    _, trunks, _ = set_up(policy, FORMS["continuation"](policy.tokenizer), TEXTS)
    step = static.Step(policy, policy.tree, trunks, (2, 3, 1024, 64, 8), (0, 1.0, False))
    assert step.grown.start.tolist() == [0] * 6


def test_a_step_serves_later_calls_of_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = closing_policy("qwen3", torch.float64)
    form = FORMS["continuation"](policy.tokenizer)
    rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True)
    before = dict(policy.tree.steps)
    rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True)
    assert policy.tree.steps == before
    asking = Asking([None] * 6, [7, 3, 12, 9, 2, 5])
    assert_same(*(rollouts(policy, form, asking, in_steps, seed=6) for in_steps in (True, False)))
    assert {key: policy.tree.steps[key] for key in before} == before
    assert len(policy.tree.steps) <= static.KEPT
    monkeypatch.setattr(static, "KEPT", 3)
    for size in range(1, 26, 8):
        rollouts(policy, form, asking, in_steps=True, size=size)
    assert len(policy.tree.steps) == 3


def test_steps_take_their_share_of_the_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = closing_policy("llama", torch.float64)
    form = FORMS["continuation"](policy.tokenizer)
    expected = [rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=False, size=size) for size in (4, 20)]
    monkeypatch.setattr(static, "free_memory", lambda _: (0, 3))  # a byte for steps: each has room for itself alone
    for size, wanted in zip((4, 20), expected, strict=True):
        assert_same(rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True, size=size), wanted)
        assert len(policy.tree.steps) == 1
    _, trunks, positions = set_up(policy, form, TEXTS)
    grown = policy.tree.branches(trunks, positions, 9)
    by_document, sizes = static._laid_out(grown, range(len(positions)), 12)
    assert sizes[:2] == (len(by_document), 8)  # as many rows in each, rounded up
    step = static.Step(policy, policy.tree, grown.trunks, sizes, (0, 1.0, False))
    kept = 2 * (step.grown.keys.nbytes + sum(layer.nbytes for layer in step.grown.trunks.keys))
    for total, enough in ((3 * kept - 3, False), (3 * kept, True)):
        monkeypatch.setattr(static, "free_memory", lambda _, total=total: (0, total))
        assert static.fits(grown, 12) is enough


def test_steps_go_with_their_model_at_once() -> None:
    policy = closing_policy("llama")
    rollouts(policy, FORMS["continuation"](policy.tokenizer), Asking(BUDGETS, CAPS), in_steps=True)
    kept = [weakref.ref(step) for step in policy.tree.steps.values()]
    gc.collect()
    gc.disable()
    try:
        del policy
        assert [step() for step in kept] == [None] * len(kept)
    finally:
        gc.enable()
    assert kept


def test_what_cannot_be_captured_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = closing_policy("llama", torch.float64)
    form = FORMS["continuation"](policy.tokenizer)
    expected = rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=False)

    def refuse(step: static.Step) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    def out_of_memory(step: static.Step) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(static, "can_capture", lambda tree: tree.captures)
    monkeypatch.setattr(static.Step, "capture", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True)
    assert policy.tree.captures
    assert not policy.tree.steps
    monkeypatch.setattr(static.Step, "capture", refuse)
    with caplog.at_level(logging.WARNING):
        for size in (4, 4, 9):
            found = rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True, size=size)
            if size == 4:
                assert_same(found, expected)
    assert caplog.text.count("cannot be captured") == 1


def test_a_step_is_tried_out_while_nobody_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph repeats the calls that it recorded: this fake one records the step and repeats it."""
    policy = closing_policy("llama", torch.float64)
    form = FORMS["continuation"](policy.tokenizer)
    replayed = []

    def capture(step: static.Step) -> None:
        for _ in range(3):
            step.run()
        step.graph = SimpleNamespace(replay=lambda: (replayed.append(step), step.run()))

    monkeypatch.setattr(static.Step, "capture", capture)
    monkeypatch.setattr(static, "can_capture", lambda tree: True)
    asking = Asking(BUDGETS, CAPS)
    assert_same(*(rollouts(policy, form, asking, in_steps) for in_steps in (True, False)))
    assert {*map(id, replayed)} == {*map(id, policy.tree.steps.values())}


class FakeCuda:
    """Notes what is asked of CUDA, in order; ``asks`` says in which run of the step it asks the CPU."""

    def __init__(self, asks: int | None = None) -> None:
        self.noted: list[str] = []
        self.asks, self.runs = asks, 0

    def __getattr__(self, name: str) -> Any:
        def note(*given: Any, **more: Any) -> Any:
            self.noted.append(" ".join([name, *(str(one) for one in given if isinstance(one, str))]))
            return MagicMock() if name != "get_sync_debug_mode" else "as before"

        return note

    def run(self) -> None:
        self.runs += 1
        self.noted.append("run")
        if self.runs == self.asks:
            raise RuntimeError("called a synchronizing operation")


@pytest.mark.parametrize(
    ("asks", "graphs"), [(None, 1), (2, 0), (3, 1)], ids=["captured", "asks the CPU", "fails late"]
)
def test_a_capture_leaves_nothing_behind_where_it_fails(
    asks: int | None, graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = closing_policy("llama")
    rollouts(policy, FORMS["continuation"](policy.tokenizer), Asking(BUDGETS, CAPS), in_steps=True)
    (step, *_), fake = policy.tree.steps.values(), FakeCuda(asks)
    step.run = fake.run
    with monkeypatch.context() as patch:
        patch.setattr(torch, "cuda", fake)
        patch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: fake.noted.append("forget"), raising=False)
        patch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *_: fake.noted.append("end pool"))
        if asks is None:
            step.capture()
        else:
            with pytest.raises(RuntimeError, match="synchronizing"):
                step.capture()
    assert (step.graph is None) is (asks is not None)
    assert fake.noted.count("CUDAGraph") == graphs
    modes = [one for one in fake.noted if one.startswith("set_sync_debug_mode")]
    assert modes == ["set_sync_debug_mode error", "set_sync_debug_mode as before"]
    if graphs:  # workspaces are the graph's own
        assert fake.noted.count("forget") == 2
        inside = fake.noted[fake.noted.index("forget") : len(fake.noted) - fake.noted[::-1].index("forget")]
        assert [one for one in inside if one in ("graph", "run")] == ["graph", "run"]
    assert fake.noted.count("set_stream") == fake.noted.count("end pool") == int(asks == 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_captured_is_uncaptured(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    results = []
    for captures in (True, False):
        small = closing_policy(shape)
        policy = make_policy("tiny", small.model.to("cuda"), small.tokenizer)
        policy.tree.captures = captures
        form = FORMS["continuation"](policy.tokenizer)
        for seed in (5, 6):  # the second call replays what the first captured
            results.append(rollouts(policy, form, Asking(BUDGETS, CAPS), in_steps=True, seed=seed, size=9))
        assert policy.tree.captures is captures
    assert "cannot be captured" not in caplog.text
    for one, other in zip(results[:2], results[2:], strict=True):
        assert_same(one, other, rel=1e-5)
