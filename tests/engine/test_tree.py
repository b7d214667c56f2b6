from __future__ import annotations

import itertools
import logging
import random
import re
import types
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rmt_mini.engine import tree as tree_room
from rmt_mini.engine.attention import branch_attention, fused_branch_attention
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
            for length, closed, budget in ((0, False, 7), (0, True, 0), (3, False, 12), (6, True, 7))[: 4 - n]:
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
    trunks = policy.tree.read([torch.tensor(ids, device=policy.device) for ids in work.trunks])
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_equals_its_plain_twin(shape: str, dtype: torch.dtype, name: str, texts: list[str]) -> None:
    policy = make_tiny_policy(shape, dtype)
    assert isinstance(policy.tree, DocumentTree)
    form = FORMS[name](policy.tokenizer)
    work = make_work(form, texts)
    assert {len(rollout.answer) > 1 for rollout in work.rollouts} == (
        {False} if name == "continuation" else {True, False}
    )
    theirs = twin_step(policy.model, form, work)
    assert len(theirs.gradients) == len(list(policy.model.parameters()))
    assert all(gradient.norm() > 0 for gradient in theirs.gradients.values())
    assert_equal_steps(tree_step(policy, form, work), theirs, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_equals_its_plain_twin_on_a_gpu(shape: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    tokenizer = byte_tokenizer()
    policy = make_policy("tiny", tiny_model(shape).to("cuda"), tokenizer)
    assert isinstance(policy.tree, DocumentTree)
    for form in (Continuation(tokenizer), Chat(tokenizer)):
        work = make_work(form, TEXTS)
        theirs = twin_step(policy.model, form, work)
        assert_equal_steps(tree_step(policy, form, work), theirs, torch.float32)


def test_chunks_do_not_matter() -> None:
    policy = make_tiny_policy("llama", torch.float64)
    form = Continuation(policy.tokenizer)
    work = make_work(form, TEXTS)
    twin_step(policy.model, form, work)
    whole = tree_step(policy, form, work, chunk=len(work.rollouts))
    for chunk in (1, 3):
        assert_equal_steps(tree_step(policy, form, work, chunk), whole, torch.float64)


def test_a_document_without_branches_gets_its_next_token_loss() -> None:
    policy = make_tiny_policy("qwen2", torch.float64)
    form = Continuation(policy.tokenizer)
    work = make_work(form, [TEXTS[0], TEXTS[2], TEXTS[0]])
    kept = [n for n, rollout in enumerate(work.rollouts) if rollout.position.trunk == 1]
    picked = ([values[n] for n in kept] for values in (work.rollouts, work.advantages, work.drift))
    work = Work(work.trunks, *picked, work.first)
    theirs = twin_step(policy.model, form, work)
    assert_equal_steps(tree_step(policy, form, work), theirs, torch.float64)


def test_without_a_next_token_loss_the_trunk_still_learns_from_its_branches() -> None:
    policy = make_tiny_policy("llama", torch.float64)
    form = Continuation(policy.tokenizer)
    work = make_work(form, TEXTS[:1])
    work.ntp_weight = 0.0
    theirs = twin_step(policy.model, form, work)
    trunks = policy.tree.read([torch.tensor(ids) for ids in work.trunks])
    leaves = trunks.detached()
    logprobs, mask = rollout_logprobs(policy, form, leaves, work.rollouts, work.temperature)
    old = torch.zeros_like(logprobs).masked_scatter(mask, torch.cat(work.old))
    rl_loss(logprobs, torch.tensor(work.advantages, dtype=torch.float64), mask, old_logprobs=old).backward()
    backward_through_trunk(trunks, leaves, None)
    ours = Outcome(theirs.rl, theirs.ntp, [], gradients_of(policy.model))
    assert gradient_gap(ours, theirs) < GRADIENT[torch.float64]


# --- What the comparison above would catch -----------------------------------------------------------------------


def shift_positions(monkeypatch: pytest.MonkeyPatch, shift: Any) -> None:
    """Add to every position id of a branch what ``shift`` makes of its document's length and its index."""
    whole, run = DocumentTree.whole, DocumentTree._run
    shifts: list[Tensor] = []

    def mutant_whole(self: DocumentTree, trunks: Any, trunk: Tensor, index: Tensor, tokens: Any) -> Tensor:
        lengths = torch.tensor([len(row) for row in tokens])
        ends = torch.tensor([len(ids) for ids in trunks.ids])[trunk]
        shifts.append(torch.repeat_interleave(shift(ends, index), lengths))
        return whole(self, trunks, trunk, index, tokens)

    def mutant_run(self: DocumentTree, tokens: Tensor, position_ids: Tensor, tree_pass: object) -> Tensor:
        return run(self, tokens, position_ids + (shifts.pop() if shifts else 0), tree_pass)

    monkeypatch.setattr(DocumentTree, "whole", mutant_whole)
    monkeypatch.setattr(DocumentTree, "_run", mutant_run)


def positions_go_on_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shift_positions(monkeypatch, lambda ends, index: ends - index)


def positions_restart_at_0(monkeypatch: pytest.MonkeyPatch) -> None:
    shift_positions(monkeypatch, lambda ends, index: -index)


def positions_are_one_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    shift_positions(monkeypatch, lambda ends, index: torch.ones_like(index))


def change_attention(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    for name, true in (("branch_attention", branch_attention), ("fused_branch_attention", fused_branch_attention)):

        def attention(*args: Any, true: Any = true) -> Tensor:
            return true(*change(*args))

        monkeypatch.setattr(tree_room, name, attention)


def sees_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches that see trunk token pos itself, which is the answer."""
    change_attention(monkeypatch, lambda q, k, v, ok, ov, seen, own, s: (q, k, v, ok, ov, seen + 1, own, s))


def misses_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    change_attention(monkeypatch, lambda q, k, v, ok, ov, seen, own, s: (q, k, v, ok, ov, seen - 1, own, s))


def sees_its_own_future(monkeypatch: pytest.MonkeyPatch) -> None:
    change_attention(monkeypatch, lambda q, k, v, ok, ov, seen, own, s: (q, k, v, ok, ov, seen, own + 1, s))


def mixes_up_key_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    change_attention(monkeypatch, lambda q, k, v, ok, ov, seen, own, s: (q, k.flip(-3), v, ok, ov, seen, own, s))


def forgets_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    change_attention(monkeypatch, lambda q, k, v, ok, ov, seen, own, s: (q, k, v, ok, ov, seen, own, 1.0))


MUTANTS = [
    positions_go_on_from_the_end,
    positions_restart_at_0,
    positions_are_one_too_high,
    sees_the_answer,
    misses_the_last_token,
    sees_its_own_future,
    mixes_up_key_heads,
    forgets_scaling,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_comparison_sees_a_wrong_tree(shape: str, mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_tiny_policy(shape)
    form = Continuation(policy.tokenizer)
    work = make_work(form, TEXTS[:1])
    theirs = twin_step(policy.model, form, work)
    mutant(monkeypatch)
    ours = tree_step(policy, form, work)
    assert abs(ours.rl - theirs.rl) > 100 * LOSS[torch.float32] * abs(theirs.rl)
    assert gradient_gap(ours, theirs) > 100 * GRADIENT[torch.float32]


def test_the_comparison_sees_a_forgotten_trunk_gradient() -> None:
    policy = make_tiny_policy()
    form = Continuation(policy.tokenizer)
    work = make_work(form, TEXTS[:1])
    theirs = twin_step(policy.model, form, work)
    trunks = policy.tree.read([torch.tensor(ids) for ids in work.trunks])
    logprobs, mask = rollout_logprobs(policy, form, trunks.detached(), work.rollouts, work.temperature)
    rl_loss(logprobs, torch.tensor(work.advantages), mask).backward()
    assert gradient_gap(Outcome(0, 0, [], gradients_of(policy.model)), theirs) > 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_a_branch_sees_exactly_what_stands_before_its_position(shape: str) -> None:
    policy = make_tiny_policy(shape)
    ids = torch.arange(20, 32)
    rows = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    trunk, index = torch.tensor([0, 0]), torch.tensor([5, 12])

    def run(ids: Tensor, rows: list[Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hidden = policy.tree.whole(policy.tree.read([ids]), trunk, index, rows)
        return hidden[:3], hidden[3:]

    def changed(ids: Tensor, place: int) -> Tensor:
        ids = ids.clone()
        ids[place] = 99
        return ids

    first, second = run(ids, rows)
    for place, (seen_by_first, seen_by_second) in {0: (1, 1), 4: (1, 1), 5: (0, 1), 11: (0, 1)}.items():
        a, b = run(changed(ids, place), rows)
        assert (not torch.equal(a, first)) == bool(seen_by_first)
        assert (not torch.equal(b, second)) == bool(seen_by_second)
    a, b = run(ids, [changed(rows[0], 1), rows[1]])
    assert torch.equal(a[0], first[0])  # a token sees itself and those before it
    assert not torch.equal(a[1], first[1])
    assert not torch.equal(a[2], first[2])
    torch.testing.assert_close(b, second, rtol=0, atol=1e-6)  # and nothing of another branch


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
    least = 0 if attention is branch_attention else 1  # in a tree something stands before every position
    trunk_length = torch.randint(least, trunk_tokens + 1, (trunks, rows), generator=generator)
    own_length = torch.randint(1, own_tokens + 1, (trunks, rows, new), generator=generator)
    ours = attention(query, *trunk, *own, trunk_length, own_length, 0.3)

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


def grow_in_pieces(policy: Policy, trunks: Any, trunk: list[int], index: list[int]) -> None:
    """Feed 1 token to all, 3 to some, 2 to others, 2 to all; compare with whole branches each time."""
    branches = policy.tree.branches(trunks, torch.tensor(trunk), torch.tensor(index), capacity=9)
    fed: list[list[int]] = [[] for _ in trunk]
    generator = torch.Generator().manual_seed(1)
    everyone = list(range(len(trunk)))
    for rows, new in ((everyone, 1), (everyone[::2], 3), (everyone[1::2], 2), (everyone[:1], 1), (everyone, 2)):
        tokens = torch.randint(0, 256, (len(rows), new), generator=generator)
        hidden = policy.tree.grow(branches, torch.tensor(rows), tokens)
        for row, more in zip(rows, tokens.tolist(), strict=True):
            fed[row] += more
        with torch.no_grad():
            whole = policy.tree.whole(
                trunks, torch.tensor(trunk), torch.tensor(index), [torch.tensor(row) for row in fed]
            )
        last = torch.tensor([len(row) for row in fed]).cumsum(0) - 1
        torch.testing.assert_close(hidden, whole[last[rows]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tree", [DocumentTree, PlainTree])
def test_branches_grow_to_what_they_are_whole(shape: str, tree: type) -> None:
    policy = make_tiny_policy(shape)
    policy.tree = tree(policy.model)
    with torch.no_grad():
        trunks = policy.tree.read([torch.arange(9), torch.arange(30, 32), torch.arange(50, 66)])
    grow_in_pieces(policy, trunks, [0, 0, 2, 2, 2], [1, 9, 3, 16, 7])


@pytest.mark.parametrize("tree", [DocumentTree, PlainTree])
def test_a_fork_shares_what_was_read_and_nothing_after(tree: type) -> None:
    policy = make_tiny_policy("qwen3")
    policy.tree = tree(policy.model)
    with torch.no_grad():
        trunks = policy.tree.read([torch.arange(9), torch.arange(30, 40)])
    trunk, index = torch.tensor([0, 1]), torch.tensor([4, 10])
    stem = policy.tree.branches(trunks, trunk, index, capacity=6)
    opening = torch.tensor([[7, 8], [9, 10]])
    policy.tree.grow(stem, torch.arange(2), opening)
    forked = stem.fork(3)
    twigs = torch.tensor([[1], [2], [3], [4], [5], [6]])
    hidden = policy.tree.grow(forked, torch.arange(6), twigs)
    rows = [torch.cat([opening[n // 3], twigs[n]]) for n in range(6)]  # copies stand side by side
    with torch.no_grad():
        whole = policy.tree.whole(trunks, trunk.repeat_interleave(3), index.repeat_interleave(3), rows)
    torch.testing.assert_close(hidden, whole[2::3], rtol=1e-4, atol=1e-4)
    stem_hidden = policy.tree.grow(stem, torch.arange(2), twigs[:2])  # the stem goes on as if never forked
    with torch.no_grad():
        again = policy.tree.whole(trunks, trunk, index, [torch.cat([opening[n], twigs[n]]) for n in range(2)])
    torch.testing.assert_close(stem_hidden, again[2::3], rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_layout_gives_the_plain_hidden_states(seed: int) -> None:
    rng = random.Random(seed)
    policy = POLICIES[rng.randrange(len(POLICIES))]
    ids = [torch.tensor([rng.randrange(256) for _ in range(rng.randint(1, 12))]) for _ in range(rng.randint(1, 4))]
    trunk = sorted(rng.randrange(len(ids)) for _ in range(rng.randint(1, 7)))
    index = [rng.randint(1, len(ids[n])) for n in trunk]
    rows = [torch.tensor([rng.randrange(256) for _ in range(rng.randint(1, 9))]) for _ in trunk]
    plain = PlainTree(policy.model)
    with torch.no_grad():
        ours, theirs = policy.tree.read(ids), plain.read(ids)
        torch.testing.assert_close(torch.cat(list(ours.hidden)), torch.cat(list(theirs.hidden)), rtol=1e-4, atol=1e-4)
        place = torch.tensor(trunk), torch.tensor(index)
        torch.testing.assert_close(
            policy.tree.whole(ours, *place, rows), plain.whole(theirs, *place, rows), rtol=1e-4, atol=1e-4
        )


POLICIES = [make_tiny_policy(shape) for shape in SHAPES]


# --- Misuse ------------------------------------------------------------------------------------------------------


def test_misuse_is_refused() -> None:
    policy = make_tiny_policy()
    with torch.no_grad():
        trunks = policy.tree.read([torch.arange(5), torch.arange(6)])
    with pytest.raises(ValueError, match="sort the branches by document"):
        policy.tree.branches(trunks, torch.tensor([1, 0]), torch.tensor([2, 2]), capacity=3)
    with pytest.raises(ValueError, match="sort the branches by document"):
        policy.tree.whole(trunks, torch.tensor([1, 0]), torch.tensor([2, 2]), [torch.arange(2), torch.arange(3)])
    branches = policy.tree.branches(trunks, torch.tensor([0, 1]), torch.tensor([2, 2]), capacity=3)
    policy.tree.grow(branches, torch.arange(2), torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="branches of 4 tokens do not fit the capacity 3"):
        policy.tree.grow(branches, torch.arange(2), torch.ones(2, 2, dtype=torch.long))
    for nothing in ([], [torch.arange(0)], [torch.arange(3), torch.arange(0)]):
        with pytest.raises(ValueError, match="at least one token"):
            policy.tree.read(nothing)


def test_outside_a_call_the_model_is_an_ordinary_one() -> None:
    policy = make_tiny_policy()
    model, ids = policy.model, torch.arange(6)
    before = model.config._attn_implementation
    expected = model(input_ids=ids[None]).logits
    with torch.no_grad():
        trunks = policy.tree.read([ids])
        assert model.config._attn_implementation == before == "sdpa"
        branches = policy.tree.branches(trunks, torch.tensor([0]), torch.tensor([3]), capacity=1)
        policy.tree.grow(branches, torch.tensor([0]), torch.tensor([[1]]))
        with pytest.raises(IndexError):
            policy.tree.read([torch.tensor([10_000])])  # no such token
    assert model.config._attn_implementation == before
    assert torch.equal(model(input_ids=ids[None]).logits, expected)
    assert model.generate(ids[None], max_new_tokens=2, do_sample=False).shape == (1, 8)


# --- Falling back ------------------------------------------------------------------------------------------------


def private_attention(self: Any, hidden_states: Tensor, position_embeddings: Any, **_: Any) -> tuple[Tensor, None]:
    """An attention that asks nobody, as in models whose code predates the interface: causal over all it is given."""
    heads = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key, value = (
        project(hidden_states).view(heads).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return self.o_proj(mixed.transpose(1, 2).flatten(2)), None


def deaf_model(dtype: torch.dtype = torch.float64) -> Any:
    model = tiny_model("llama", dtype)
    for layer in model.model.layers:
        layer.self_attn.forward = types.MethodType(private_attention, layer.self_attn)
    return model


@pytest.mark.parametrize("name", FORMS)
def test_an_unfit_model_takes_the_plain_path_and_gives_the_same_step(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        policy = make_policy("deaf", deaf_model(), byte_tokenizer())
    assert isinstance(policy.tree, PlainTree)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "The document tree does not fit LlamaForCausalLM" in caplog.text
    assert "plain path" in caplog.text
    assert policy.model.config._attn_implementation == "sdpa"
    form = FORMS[name](policy.tokenizer)
    work = make_work(form, TEXTS)
    theirs = twin_step(policy.model, form, work)
    assert_equal_steps(tree_step(policy, form, work), theirs, torch.float64)


@pytest.mark.parametrize("window", [4, 64], ids=["seen by the check", "beyond the check's few tokens"])
def test_a_sliding_window_takes_the_plain_path(window: int, caplog: pytest.LogCaptureFixture) -> None:
    policy = make_tiny_policy("qwen2", use_sliding_window=True, sliding_window=window, max_window_layers=1)
    assert isinstance(policy.tree, PlainTree)
    assert "does not fit Qwen2ForCausalLM" in caplog.text
    form = BareFormat()
    long = torch.randint(6, 200, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    rollout = Rollout(Position(0, 90, 0, 0.0), 0, (9, 9), True, (7,), ())
    work = Work([long], [rollout], [1.0], [[0.1, 0.0, -0.2, 0.3]])
    theirs = twin_step(policy.model, form, work)
    assert_equal_steps(tree_step(policy, form, work), theirs, torch.float32)


def test_a_model_on_which_the_tree_fails_takes_the_plain_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no such architecture")

    monkeypatch.setattr(tree_room, "fused_branch_attention", broken)
    model = tiny_model()
    assert isinstance(choose_tree(model), PlainTree)
    assert "RuntimeError: no such architecture" in caplog.text
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("shape", SHAPES)
def test_fitting_models_take_the_tree_in_every_dtype(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert isinstance(make_tiny_policy(shape, dtype).tree, DocumentTree)
    assert not caplog.records


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
