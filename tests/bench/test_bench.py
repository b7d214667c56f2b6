"""The benchmark: every contender does the same work, and a figure is what its measurements say."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from rmt_mini.bench import bench as room
from rmt_mini.bench import parts
from rmt_mini.bench.bench import bench, best, climb, lay_out_results, ratios, run_part
from rmt_mini.bench.parts import (
    PARTS,
    MeasuredStep,
    _operations,
    padded_update,
    positions_for,
    prompts_for,
    sample,
    tree,
)
from rmt_mini.bench.sizes import FIXED, Setting
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.optimizer import MasterAdamW

ROOT = Path(__file__).resolve().parents[2]
SMALL = Setting(
    model="micro", corpus="micro", dtype="float32", positions=2, group_size=4, prefix=20, thought_tokens=5, steps=1
)


@pytest.fixture(scope="module")
def trainer() -> MeasuredStep:
    return MeasuredStep(SMALL, load_policy("micro", "cpu", "float32"))


def test_all_contenders_do_the_same_work(trainer: MeasuredStep) -> None:
    judged = trainer.step(0, trainer.texts).judged
    assert len(judged) == SMALL.rollouts == 16
    assert {one.rollout.length for one in judged} == {5}
    advantages = torch.tensor([one.advantage for one in judged]).view(-1, 4)
    assert (advantages.sum(1) == 0).all()
    assert (advantages != 0).all()  # every group trains
    assert sum(p.index for p in positions_for(SMALL)) / 4 == SMALL.prefix
    opening, prompts = trainer.form.opening(16), prompts_for(SMALL, trainer.policy)
    for prompt, position in zip(prompts, positions_for(SMALL), strict=True):
        assert prompt == [*trainer.texts[position.trunk].ids[: position.index], *opening]
    assert sample(trainer.policy, prompts, SMALL) == 4 * 4 * 5
    assert trainer.policy.model.config.use_cache is False  # as it was


def test_operations_by_hand(trainer: MeasuredStep) -> None:
    policy = trainer.policy
    embedding = policy.model.get_input_embeddings().weight.numel()  # tied: counted once among the parameters
    assert _operations(policy, 10, 0) == 2 * 10 * (policy.parameters - embedding)
    assert _operations(policy, 0, 3) == 2 * 3 * embedding


def test_the_padded_update_has_the_gradient_of_its_rows() -> None:
    """Rows of different lengths in batches of two, against one row at a time."""
    policy = load_policy("micro", "cpu", "float32")
    rows = [([3, 4, 5, 6, 7], 3), ([8, 9, 10], 1), ([11, 12, 13, 14], 2)]
    optimizer = MasterAdamW(policy.model, 1e-6, 0.0, 1.0)
    seen: list[torch.Tensor] = []
    optimizer.step = lambda: seen.append(policy.model.get_input_embeddings().weight.grad.clone())  # type: ignore
    padded_update(policy, optimizer, rows, [([5, 6, 7], 1)], 2)
    policy.model.zero_grad()
    expected = torch.zeros(())
    for part, weight in ((rows[:2], 1.0), (rows[2:], 1.0), ([([5, 6, 7], 1)], 0.1)):
        count = sum(len(tokens) - first for tokens, first in part)
        for tokens, first in part:
            logits = policy.model(input_ids=torch.tensor([tokens])).logits[0]
            chosen = logits.log_softmax(-1)[range(first - 1, len(tokens) - 1), tokens[first:]]
            expected = expected - weight * chosen.sum() / count
    torch.autograd.backward(expected)
    wanted = policy.model.get_input_embeddings().weight.grad
    assert (seen[0] - wanted).norm() < 1e-5 * wanted.norm()  # single elements may cancel to nothing but rounding


def test_the_tree_is_measured_by_rmts_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = RMTTrainer.step
    monkeypatch.setattr(RMTTrainer, "step", lambda self, t, texts: calls.append(t) or real(self, t, texts))  # type: ignore
    found, longer = tree(SMALL), tree(SMALL.replace(thought_tokens=9))
    assert calls == [0, 1, 0, 1]  # one to warm up
    assert longer["tokens"] - found["tokens"] == 4 * SMALL.rollouts
    assert len(found["seconds"]) == 1
    assert found["seconds"][0] == found["rollout_seconds"][0] + found["update_seconds"][0]
    assert found["rollout_operations"] < found["update_operations"] < 4 * found["rollout_operations"]


def test_what_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the tree cannot be measured: .*absent"):
        bench(Setting(model=str(tmp_path / "absent")), tmp_path / "out", False, {})
    assert not (tmp_path / "out").exists()
    found = run_part("generate", SMALL)
    assert len(found["seconds"]) == SMALL.steps
    assert found["peak_memory_mb"] > 100
    (tmp_path / "note.txt").write_text("A lift waits on floor 3.", encoding="utf-8")
    with pytest.raises(UserError, match=r"gives 1 texts of up to 48 tokens, .* \(2\); lower --documents"):
        prompts_for(SMALL.replace(corpus=str(tmp_path / "note.txt")), load_policy("micro", "cpu", "float32"))


@pytest.mark.parametrize(
    ("seconds", "asked", "fastest"),
    [
        ([9, 7, 8], [8, 16, 32], 16),
        ([9, 9.5], [8, 16], 8),
        ([9, None], [8, 16], 8),
        ([9, 7, 5, 3], [8, 16, 32, 64], 64),
    ],
)
def test_micro_batches_grow_while_they_are_faster(
    seconds: list[float], asked: list[int], fastest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter({"error": "killed"} if now is None else {"seconds": [now]} for now in seconds)
    monkeypatch.setattr(room, "run_part", lambda *_, **more: next(left) | more)
    found = climb(Setting(), "trl")
    assert [one["micro_batch"] for one in found] == asked
    assert best(found)["micro_batch"] == fastest
    assert climb(Setting(documents=1, positions=1, group_size=2), "trl") == []


def test_readme_has_what_was_measured_on_a_gpu() -> None:
    found = json.loads((ROOT / "data/bench/h200.json").read_text())
    tree, trl = found["tree"], found["trl"]
    step, rollouts, update, theirs = (
        median(one) for one in (tree["seconds"], tree["rollout_seconds"], tree["update_seconds"], trl["seconds"])
    )
    memory, more = (one["peak_memory_mb"] / 1000 for one in (tree, trl))
    sentence = (
        f"the tree {step:.1f} s (rollouts {rollouts:.1f}, update {update:.1f}) and {memory:.0f} GB, TRL {theirs:.1f} s "
        f"and {more:.0f} GB at micro-batch {trl['micro_batch']}"
    )
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert sentence in readme
    operations = tree["rollout_operations"] + tree["update_operations"]
    alone = operations / found["limits"]["products"][tree["dtype"]]
    assert f"arithmetic alone is {alone:.2f} s at the card's rate" in readme


def test_the_recorded_report_is_laid_out_from_the_recorded_numbers() -> None:
    found = json.loads((ROOT / "data/bench/bench.json").read_text())
    report = (ROOT / "data/bench/report.md").read_text()
    assert report.startswith(lay_out_results(found, ""))
    for name, value in ratios(found["limits"], found["contenders"]).items():
        assert found[name] == pytest.approx(value)


def test_figures_by_hand_and_missing_contenders_leave_gaps() -> None:
    one = {
        "dtype": "float32", "seconds": [2.0], "rollout_seconds": [0.5], "update_seconds": [1.5],
        "rollout_operations": 1e9, "update_operations": 3e9, "peak_memory_mb": 500.0,
    }  # fmt: skip
    slow = {"seconds": [6.0, 8.0, 7.0], "peak_memory_mb": 1000.0}
    limits = {"products": {"float32": 4e9, "bfloat16": 4e8}, "copy_bandwidth": 1e10}
    measured = {"tree": one, "trl": slow, "generate": {"error": "out of | memory"}, "padded": {}}
    found = ratios(limits, measured)
    assert (found["step_speedup_vs_trl"], found["memory_ratio_vs_trl"]) == (3.5, 0.5)
    assert (found["rollout_share_of_peak"], found["update_share_of_peak"]) == (0.5, 0.5)
    assert found["rollout_speedup_vs_generate"] is found["update_speedup_vs_plain"] is None
    tables = lay_out_results({**found, "contenders": measured, "limits": limits})
    assert "| generate: rollouts | - | - | - | out of &#124; memory |" in tables
    assert "| padded rows: update | - | - | - | not measured |" in tables
    assert "| the tree: update | 1.50 (1.50 to 1.50) | 0.75 | 0.5 | float32 |" in tables


def test_a_whole_bench_with_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is measured, here; that a process of its own serves a part, another test shows."""
    pytest.importorskip("trl")
    memory = {"peak_memory_mb": 100.0}
    # TRL is not tried in bfloat16, which takes ten times as long
    monkeypatch.setattr(parts, "product_rate", lambda _, dtype, *__: {torch.float32: 4e9, torch.bfloat16: 4e8}[dtype])
    monkeypatch.setattr(room, "run_part", lambda name, *given, **more: PARTS[name](*given, **more) | memory)
    folder, _ = bench(SMALL, tmp_path / "out", True, {"group_size": (2, 4)})
    found = json.loads((folder / "bench.json").read_text())
    assert {*FIXED["speedups"], "rollout_share_of_peak", "update_share_of_peak", "memory_ratio_vs_trl"} <= found.keys()
    measured = found["contenders"]
    assert {one["dtype"] for one in measured["trl_trials"]} == {"float32"}
    assert [point["value"] for point in found["sweeps"]["group_size"]["points"]] == [2, 4]
    assert [len(measured[one]["seconds"]) for one in ("tree", "generate", "padded", "trl")] == [SMALL.steps] * 4
    assert found["step_speedup_vs_trl"] == pytest.approx(measured["trl"]["seconds"][0] / measured["tree"]["seconds"][0])
    assert (folder / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "](cost.png)" in (folder / "report.md").read_text()
