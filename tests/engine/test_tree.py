import itertools
import random
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rmt_mini.engine import layers as layers_room
from rmt_mini.engine import tree as tree_room
from rmt_mini.engine.attention import branch_attention, fused_branch_attention, seen_by
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.plain import PlainTree, choose_tree
from rmt_mini.engine.prompt import Chat, Continuation
from rmt_mini.engine.rollout import rollout_logprobs
from rmt_mini.engine.tree import DocumentTree, backward_through_trunk
from rmt_mini.method.grpo import rl_loss
from rmt_mini.method.objective import ntp_loss, ntp_mask
from rmt_mini.records import Position, Rollout
from tests.engine.plain_twin import Outcome, Work, gradients_of, twin_step
from tests.fakes import SHAPES, BareFormat, byte_tokenizer, make_tiny_policy, tiny_model

TEXTS = ["The sum is 17.\nSo é = 4", "x", "Let n be odd </think> \\boxed{9}; n² is odd"]
FORMS = {"continuation": Continuation, "chat": Chat}

# Relative to the size of the whole.
LOSS = {torch.float32: 1e-5, torch.float64: 1e-11}
GRADIENT = {torch.float32: 1e-4, torch.float64: 1e-10}


def make_work(form: Any, texts: list[str], seed: int = 0) -> Work:
    """Three positions a document (first, middle, last), each with thoughts from empty to long, closed and not."""
    rng = random.Random(seed)
    trunks, first = [], 1
    for text in texts:
        ids, first = form.trunk(text)
        trunks.append(ids)
    rollouts, drift = [], []
    for n, ids in enumerate(trunks):
        for index in sorted({1, (first + len(ids)) // 2, len(ids) - 1}):
            if not 1 <= index < len(ids):
                continue  # the document of one token has no position in `continuation`
            for length, closed, budget in ((0, False, 7), (0, True, None), (3, False, 12), (6, True, 7))[: 4 - n]:
                thought = tuple(rng.randrange(256) for _ in range(length))
                answer = tuple(rng.randrange(256) for _ in range(rng.randint(1, min(5, form.answer_limit))))
                rollouts.append(Rollout(Position(n, index, 0, 0.0), budget, thought, closed, answer, ()))
                drift.append([rng.uniform(-0.5, 0.5) for _ in range(length + closed + len(answer))])
    # not around 0: a sum that cancels has no relative precision
    return Work(trunks, rollouts, [rng.uniform(-0.5, 1) for _ in rollouts], drift, first)


def tree_step(policy: Policy, form: Any, work: Work, chunk: int = 5) -> Outcome:
    """The same step as the package does it: trunk once, branches in chunks, one pass back through the trunk.

    ``work.old`` stems from the twin, which goes first.
    """
    policy.model.zero_grad(set_to_none=True)
    trunks = policy.tree.read(work.trunks)
    leaves = trunks.detached()
    count = sum(map(len, work.old))
    rl, kept = 0.0, []
    for start in range(0, len(work.rollouts), chunk):
        piece = work.rollouts[start : start + chunk]
        logprobs, mask = rollout_logprobs(policy, form, leaves, piece, work.temperature)
        assert mask.sum(1).tolist() == [len(old) for old in work.old[start : start + chunk]]
        old = torch.zeros_like(logprobs).masked_scatter(mask, torch.cat(work.old[start : start + chunk]))
        advantages = torch.tensor(work.advantages[start : start + chunk], dtype=old.dtype, device=old.device)
        loss = rl_loss(logprobs, advantages, mask, old_logprobs=old, count=count)
        loss.backward()
        rl += loss.item()
        kept += [row[seen].detach() for row, seen in zip(logprobs, mask, strict=True)]
    hidden = torch.cat([states[:-1] for states in trunks.hidden])
    targets = torch.cat([ids[1:] for ids in trunks.ids])
    masks = []
    for n, ids in enumerate(work.trunks):
        chosen = {r.position.index for r in work.rollouts if r.position.trunk == n}
        mask = ntp_mask(len(ids), [index for index in chosen if index >= work.first], work.first)
        masks.append(mask[1:])
    ntp = ntp_loss(target_logprobs(policy.head, hidden, targets), torch.cat(masks).to(policy.device))
    backward_through_trunk(trunks, leaves, work.ntp_weight * ntp)
    return Outcome(rl, ntp.item(), kept, gradients_of(policy.model))


def gap(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def gradient_gap(ours: Outcome, theirs: Outcome) -> float:
    """Largest relative difference over the parameters; infinite where one side lacks a gradient."""
    if ours.gradients.keys() != theirs.gradients.keys():
        return float("inf")
    return max(gap(ours.gradients[name], theirs.gradients[name]) for name in theirs.gradients)


def assert_equal_steps(ours: Outcome, theirs: Outcome, dtype: torch.dtype) -> None:
    assert ours.rl == pytest.approx(theirs.rl, rel=LOSS[dtype])
    assert ours.ntp == pytest.approx(theirs.ntp, rel=LOSS[dtype])
    for our_row, their_row in zip(ours.logprobs, theirs.logprobs, strict=True):
        torch.testing.assert_close(our_row, their_row, rtol=LOSS[dtype], atol=LOSS[dtype])
    assert gradient_gap(ours, theirs) < GRADIENT[dtype]


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS], ids=["one", "three"])
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("dtype", "device"),
    [
        (torch.float32, "cpu"),
        (torch.float64, "cpu"),
        pytest.param(torch.float32, "cuda", marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_equals_its_plain_twin(shape: str, dtype: torch.dtype, device: str, name: str, texts: list[str]) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA")
    policy = make_policy("tiny", tiny_model(shape, dtype).to(device), byte_tokenizer())
    assert isinstance(policy.tree, DocumentTree)
    assert (policy.tree.layers is None) == (dtype == torch.float64)  # our own layers, and transformers'
    form = FORMS[name](policy.tokenizer)
    work = make_work(form, texts)
    theirs = twin_step(policy.model, form, work)
    assert len(theirs.gradients) == len(list(policy.model.parameters()))
    assert all(gradient.norm() > 0 for gradient in theirs.gradients.values())
    assert_equal_steps(tree_step(policy, form, work), theirs, dtype)


# --- The attention itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trunks", "rows", "heads", "kv_heads", "new", "trunk_tokens", "own_tokens"),
    [
        (1, 1, 1, 1, 1, 1, 1),
        (1, 3, 4, 2, 2, 5, 4),
        (2, 2, 6, 1, 3, 7, 3),
        (3, 4, 3, 3, 1, 2, 6),
        (2, 2, 4, 4, 4, 9, 4),
        (4, 1, 4, 2, 1, 3, 5),
    ],
)
@pytest.mark.parametrize("attention", [branch_attention, fused_branch_attention])
def test_branch_attention_is_masked_attention(
    trunks: int, rows: int, heads: int, kv_heads: int, new: int, trunk_tokens: int, own_tokens: int, attention: Any
) -> None:
    generator = torch.Generator().manual_seed(rows)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    query = draw(trunks, rows, heads, new, 8)
    trunk = draw(trunks, kv_heads, trunk_tokens, 8), draw(trunks, kv_heads, trunk_tokens, 8)
    own = draw(trunks, rows, kv_heads, own_tokens, 8), draw(trunks, rows, kv_heads, own_tokens, 8)
    trunk_length = torch.randint(0, trunk_tokens + 1, (trunks, rows), generator=generator)
    own_length = torch.randint(1, own_tokens + 1, (trunks, rows, new), generator=generator)
    ours = attention(query, trunk, own, seen_by(trunk_tokens, own_tokens, trunk_length, own_length), 0.3)

    mask = torch.zeros(trunks, rows, 1, new, trunk_tokens + own_tokens, dtype=torch.bool)
    for n, r, c in itertools.product(range(trunks), range(rows), range(new)):
        mask[n, r, :, c, : trunk_length[n, r]] = True
        mask[n, r, :, c, trunk_tokens : trunk_tokens + own_length[n, r, c]] = True
    key, value = (
        torch.cat([t[:, None].expand(-1, rows, -1, -1, -1), o], dim=3).flatten(0, 1)
        for t, o in zip(trunk, own, strict=True)
    )
    theirs = F.scaled_dot_product_attention(
        query.flatten(0, 1), key, value, mask.flatten(0, 1), scale=0.3, enable_gqa=True
    ).view_as(query)
    torch.testing.assert_close(ours, theirs)

    direction = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    leaves = (query, *trunk, *own)
    for one, other in zip(
        torch.autograd.grad(ours, leaves, direction), torch.autograd.grad(theirs, leaves, direction), strict=True
    ):
        torch.testing.assert_close(one, other)


# --- Growing -----------------------------------------------------------------------------------------------------


def at(*places: tuple[int, int]) -> list[Position]:
    return [Position(trunk, index, 0, 0.0) for trunk, index in places]


@torch.no_grad()
def last_of_whole(policy: Policy, trunks: Any, positions: list[Position], rows: list[list[int]]) -> Tensor:
    """Hidden state of each branch's last token, read whole."""
    hidden = policy.tree.whole(trunks, positions, rows)
    return hidden[torch.tensor([len(row) for row in rows]).cumsum(0) - 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tree", [DocumentTree, PlainTree])
def test_branches_grow_to_what_they_are_whole(shape: str, tree: type) -> None:
    policy = make_tiny_policy(shape)
    policy.tree = tree(policy.model)
    with torch.no_grad():  # numbered as in a list of which only some are read
        trunks = policy.tree.read({0: range(9), 3: range(30, 32), 7: range(50, 66)})
    positions = at((0, 1), (0, 9), (7, 3), (7, 16), (7, 7))
    branches = policy.tree.branches(trunks, positions, capacity=9)
    fed: list[list[int]] = [[] for _ in positions]
    generator = torch.Generator().manual_seed(1)
    for rows, new in (([0, 1, 2, 3, 4], 1), ([0, 2, 4], 3), ([1, 3], 2), ([0], 1), ([0, 1, 2, 3, 4], 2)):
        tokens = torch.randint(0, 256, (len(rows), new), generator=generator)
        hidden = policy.tree.grow(branches, torch.tensor(rows), tokens)
        for row, more in zip(rows, tokens.tolist(), strict=True):
            fed[row] += more
        whole = last_of_whole(policy, trunks, positions, fed) if all(fed) else hidden
        torch.testing.assert_close(hidden, whole[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tree", [DocumentTree, PlainTree])
def test_a_fork_shares_what_was_read_and_nothing_after(tree: type) -> None:
    policy = make_tiny_policy("qwen3")
    policy.tree = tree(policy.model)
    with torch.no_grad():
        trunks = policy.tree.read([range(9), range(30, 40)])
    positions, openings = at((0, 4), (1, 10)), [[7, 8], [9, 10]]
    stem = policy.tree.branches(trunks, positions, capacity=6)
    policy.tree.grow(stem, torch.arange(2), torch.tensor(openings))
    hidden = policy.tree.grow(
        stem.take(torch.arange(2).repeat_interleave(3)), torch.arange(6), torch.arange(1, 7)[:, None]
    )
    rows = [[*openings[n // 3], n + 1] for n in range(6)]  # copies are side by side
    whole = last_of_whole(policy, trunks, [one for one in positions for _ in range(3)], rows)
    torch.testing.assert_close(hidden, whole, rtol=1e-4, atol=1e-4)
    hidden = policy.tree.grow(stem, torch.arange(2), torch.tensor([[1], [2]]))  # the stem is as if never forked
    whole = last_of_whole(policy, trunks, positions, [[7, 8, 1], [9, 10, 2]])
    torch.testing.assert_close(hidden, whole, rtol=1e-4, atol=1e-4)


POLICIES = [make_tiny_policy(shape) for shape in SHAPES]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_layout_gives_the_plain_hidden_states(seed: int) -> None:
    rng = random.Random(seed)
    policy = POLICIES[rng.randrange(len(POLICIES))]
    ids = [[rng.randrange(256) for _ in range(rng.randint(1, 12))] for _ in range(rng.randint(1, 4))]
    trunk = sorted(rng.randrange(len(ids)) for _ in range(rng.randint(1, 7)))
    positions = at(*((n, rng.randint(1, len(ids[n]))) for n in trunk))
    rows = [[rng.randrange(256) for _ in range(rng.randint(1, 9))] for _ in trunk]
    plain = PlainTree(policy.model)
    with torch.no_grad():
        ours, theirs = policy.tree.read(ids), plain.read(ids)
        torch.testing.assert_close(torch.cat(list(ours.hidden)), torch.cat(list(theirs.hidden)), rtol=1e-4, atol=1e-4)
        whole = (tree.whole(read, positions, rows) for tree, read in ((policy.tree, ours), (plain, theirs)))
        torch.testing.assert_close(*whole, rtol=1e-4, atol=1e-4)


def test_misuse_is_refused() -> None:
    policy = make_tiny_policy()
    with torch.no_grad():
        trunks = policy.tree.read([range(5), range(6)])
    with pytest.raises(ValueError, match="sort the branches by document"):
        policy.tree.branches(trunks, at((1, 2), (0, 2)), capacity=3)
    with pytest.raises(ValueError, match="sort the branches by document"):
        policy.tree.whole(trunks, at((1, 2), (0, 2)), [[0, 1], [0, 1, 2]])
    branches = policy.tree.branches(trunks, at((0, 2), (1, 2)), capacity=3)
    policy.tree.grow(branches, torch.arange(2), torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="branches of 4 tokens do not fit the capacity 3"):
        policy.tree.grow(branches, torch.arange(2), torch.ones(2, 2, dtype=torch.long))
    for nothing in ([], [[]], [[1, 2], []]):
        with pytest.raises(ValueError, match="at least one token"):
            policy.tree.read(nothing)


def test_outside_a_call_the_model_is_an_ordinary_one() -> None:
    model = (policy := make_tiny_policy()).model
    ids = torch.arange(6)[None]
    expected = model(input_ids=ids).logits
    with torch.no_grad():
        policy.tree.read([range(6)])
        with pytest.raises(IndexError):
            policy.tree.read([[10_000]])  # no such token
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 8)


# --- Falling back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [4, 64], ids=["seen by the check", "beyond the check's few tokens"])
def test_a_sliding_window_takes_the_plain_path(window: int, caplog: pytest.LogCaptureFixture) -> None:
    policy = make_tiny_policy("qwen2", use_sliding_window=True, sliding_window=window, max_window_layers=1)
    assert isinstance(policy.tree, PlainTree)
    assert "does not fit Qwen2ForCausalLM" in caplog.text
    form = BareFormat()
    long = torch.randint(6, 200, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    rollout = Rollout(Position(0, 90, 0, 0.0), None, (9, 9), True, (7,), ())
    work = Work([long], [rollout], [1.0], [[0.1, 0.0, -0.2, 0.3]])
    theirs = twin_step(policy.model, form, work)
    assert_equal_steps(tree_step(policy, form, work), theirs, torch.float32)


def test_a_model_on_which_the_tree_fails_takes_the_plain_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no such architecture")

    monkeypatch.setattr(tree_room, "branch_attention", broken)
    model = tiny_model()
    assert isinstance(choose_tree(model), PlainTree)
    assert "RuntimeError: no such architecture" in caplog.text
    assert model.config._attn_implementation == "sdpa"


def test_rotary_embeddings_of_the_longest_row_take_the_plain_path(caplog: pytest.LogCaptureFixture) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert isinstance(choose_tree(tiny_model(rope_parameters=rope)), PlainTree)
    assert "depend on the longest row of a call" in caplog.text


def test_memory_that_runs_out_is_no_reason_for_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tree_room, "branch_attention", full)
    with pytest.raises(torch.OutOfMemoryError):
        choose_tree(tiny_model())


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -7 * gradient


@pytest.mark.parametrize("place", ["branches", "trunk"])
def test_right_states_with_wrong_gradients_take_the_plain_path(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "branches":
        right = tree_room.fused_branch_attention
        monkeypatch.setattr(tree_room, "fused_branch_attention", lambda *given: _Reversed.apply(right(*given)))
    else:
        attend = tree_room.Trunks.attend
        monkeypatch.setattr(tree_room.Trunks, "attend", lambda *given: _Reversed.apply(attend(*given)))
    model = tiny_model()
    assert isinstance(choose_tree(model), PlainTree)
    assert re.search(r"hidden states differ by 0\.0% of their size and gradients differ by [1-9]", caplog.text)


def test_layers_that_compute_something_else_give_way_to_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rotate = layers_room._Rotate.forward
    monkeypatch.setattr(layers_room._Rotate, "forward", lambda ctx, x, cos, sin: rotate(ctx, x, cos, -sin))
    tree = choose_tree(tiny_model())
    assert isinstance(tree, DocumentTree)
    assert tree.layers is None
    assert not caplog.records


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"attention_bias": True, "mlp_bias": True}, {}])
def test_our_layers_are_of_llama_s_kind(change: dict[str, Any]) -> None:
    tree = choose_tree(tiny_model(**change))
    assert isinstance(tree, DocumentTree)
    assert (tree.layers is None) == (change.get("hidden_act") == "gelu")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_states(shape: str, dtype: torch.dtype) -> None:
    tree = choose_tree(tiny_model(shape, dtype))
    assert isinstance(tree, DocumentTree)
    assert tree.layers is not None
    with torch.no_grad():
        (plain,) = tree.read([range(20)]).hidden
        with tree.sampling():
            (packed,) = tree.read([range(20)]).hidden
            used = isinstance(tree.layers.layers[0], layers_room._PackedLayer)
    assert used == layers_room.one_dnn(plain, packed=True)  # a processor may not multiply bfloat16
    assert not isinstance(tree.layers.layers[0], layers_room._PackedLayer)
    assert gap(packed, plain) < (1e-5 if dtype == torch.float32 else 2e-2)


def test_without_one_dnn_the_usual_products_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    tree = choose_tree(model := tiny_model())
    assert isinstance(tree, DocumentTree)
    assert tree.layers is not None
    with torch.no_grad(), tree.sampling():
        (ours,), (plain,) = tree.read([range(20)]).hidden, PlainTree(model).read([range(20)]).hidden
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_the_check_leaves_gradients_and_what_is_trained_as_they_were() -> None:
    model = tiny_model()
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    (trained, *others) = [parameter for parameter in model.parameters() if parameter is not frozen]
    trained.grad = torch.ones_like(trained)
    with torch.no_grad():
        assert isinstance(choose_tree(model), DocumentTree)
    assert (frozen.requires_grad, frozen.grad) == (False, None)
    assert torch.equal(trained.grad, torch.ones_like(trained))
    assert all(one.requires_grad and one.grad is None for one in others)
