"""The benchmark: every contender does the same work, and a figure is what its measurements say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from rmt_mini.bench import bench as room
from rmt_mini.bench.bench import bench, lay_out_results, ratios, run_part
from rmt_mini.bench.parts import (
    MeasuredStep,
    Setting,
    _operations,
    padded_update,
    positions_for,
    prompts_for,
    sample,
    sweep,
    tree,
)
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.report import plots
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.optimizer import MasterAdamW

ROOT = Path(__file__).resolve().parents[2]
SMALL = Setting(
    model="micro", corpus="micro", dtype="float32", positions=2, group_size=4, prefix=20, thought_tokens=5, steps=1
)


@pytest.fixture(scope="module")
def trainer() -> MeasuredStep:
    return MeasuredStep(SMALL, load_policy("micro", "cpu", "float32"))


def test_a_step_has_the_sizes_of_its_setting(trainer: MeasuredStep) -> None:
    judged = trainer.step(0, trainer.texts).judged
    assert len(judged) == SMALL.rollouts == 16
    assert {one.rollout.length for one in judged} == {5}
    assert sum(p.index for p in positions_for(SMALL)) / 4 == SMALL.prefix
    advantages = torch.tensor([one.advantage for one in judged]).view(-1, 4)
    assert (advantages.sum(1) == 0).all()
    assert (advantages != 0).all()  # every group trains


def test_the_contenders_get_the_prefixes_of_the_same_positions(trainer: MeasuredStep) -> None:
    opening = trainer.form.opening(16)
    for prompt, position in zip(prompts_for(SMALL, trainer.policy), positions_for(SMALL), strict=True):
        assert prompt == [*trainer.texts[position.trunk].ids[: position.index], *opening]


def test_operations_by_hand() -> None:
    policy = load_policy("micro", "cpu", "float32")
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
    padded_update(policy, optimizer, rows, [[5, 6, 7]], 2)
    policy.model.zero_grad()
    expected = 0.0
    for part, weight in ((rows[:2], 1.0), (rows[2:], 1.0), ([([5, 6, 7], 1)], 0.1)):
        count = sum(len(tokens) - first for tokens, first in part)
        for tokens, first in part:
            logits = policy.model(input_ids=torch.tensor([tokens])).logits[0]
            chosen = logits.log_softmax(-1)[range(first - 1, len(tokens) - 1), tokens[first:]]
            expected = expected - weight * chosen.sum() / count
    torch.autograd.backward(expected)
    wanted = policy.model.get_input_embeddings().weight.grad
    assert (seen[0] - wanted).norm() < 1e-5 * wanted.norm()  # single elements may cancel to nothing but rounding


def test_sampling_gives_every_row_its_tokens(trainer: MeasuredStep) -> None:
    assert sample(trainer.policy, prompts_for(SMALL, trainer.policy), SMALL) == 4 * 4 * 5
    assert trainer.policy.model.config.use_cache is False  # as it was


def test_a_sweep_changes_one_size() -> None:
    points = sweep(SMALL, "thought_tokens", [3, 9])["points"]
    assert [point["value"] for point in points] == [3, 9]
    assert points[1]["tokens"] - points[0]["tokens"] == 6 * SMALL.rollouts
    alt = plots.cost({"thought_tokens": {"points": points}}, 1e9).alt
    assert "for thought tokens 3 to 9" in alt
    assert "nothing to draw" in plots.cost({"prefix": {"error": "x"}}, 1e9).alt


def test_the_tree_is_measured_by_rmts_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = RMTTrainer.step

    def counted(self: Any, step: int, texts: Any) -> Any:
        calls.append(step)
        return real(self, step, texts)

    monkeypatch.setattr(RMTTrainer, "step", counted)
    found = tree(SMALL)
    assert calls == [0, 1]  # one to warm up
    assert len(found["seconds"]) == 1
    assert found["seconds"][0] == found["rollout_seconds"][0] + found["update_seconds"][0]
    assert found["rollout_operations"] < found["update_operations"] < 4 * found["rollout_operations"]


def test_a_contender_that_fails_is_reported(tmp_path: Path) -> None:
    failed = run_part("tree", Setting(model=str(tmp_path / "absent")))
    assert "absent" in failed["error"]
    with pytest.raises(UserError, match="cannot be measured"):
        bench(Setting(model=str(tmp_path / "absent")), tmp_path / "out", False, {}, progress=False)
    assert not (tmp_path / "out").exists()


def falling(micro_batch: int) -> dict[str, Any]:
    """A contender that is the faster the more it gets."""
    return {"seconds": [1 / micro_batch], "micro_batch": micro_batch}


def test_micro_batches_grow_while_they_are_faster() -> None:
    for seconds, expected in (([9, 7, 8], [8, 16, 32]), ([9, 9.5, 1], [8, 16]), ([9, None, 1], [8, 16])):
        asked: list[int] = []

        def measure(micro_batch: int, seconds: Any = seconds, asked: Any = asked) -> dict[str, Any]:
            asked.append(micro_batch)
            now = seconds[len(asked) - 1]
            return {"error": "killed"} if now is None else {"seconds": [now], "micro_batch": micro_batch}

        found = room._climb(Setting(), measure)
        assert asked == expected
        assert room._best(found)["micro_batch"] == (16 if seconds[1] == 7 else 8)
    assert room._climb(Setting(documents=1, positions=1, group_size=2), measure) == []
    sizes = [one["micro_batch"] for one in room._climb(Setting(documents=8, positions=8), falling)]
    assert sizes == [64, 128, 256, 512]


def test_only_dtypes_that_the_machine_multiplies_are_tried() -> None:
    assert room._multiplied({"products": {"bfloat16": 1.3e9, "float32": 172e9}}) == ["float32"]
    assert room._multiplied({"products": {"bfloat16": 921e9, "float32": 220e9}}) == ["bfloat16", "float32"]


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
    assert lay_out_results(found) in (ROOT / "data/bench/report.md").read_text()
    for name, value in ratios(found["limits"], found["contenders"]).items():
        assert found[name] == pytest.approx(value)


def test_missing_contenders_leave_gaps_not_numbers() -> None:
    one = {
        "dtype": "float32", "seconds": [2.0], "rollout_seconds": [0.5], "update_seconds": [1.5],
        "rollout_operations": 1e9, "update_operations": 3e9, "peak_memory_mb": 500.0,
    }  # fmt: skip
    nothing = {"error": "out of memory"}
    measured = {"tree": one, "trl": {}, "generate": nothing, "continuous": nothing, "padded": nothing}
    limits = {"products": {"float32": 4e9}, "copy_bandwidth": 1e10}
    found = ratios(limits, measured)
    assert found["step_speedup_vs_trl"] is found["memory_ratio_vs_trl"] is found["update_speedup_vs_plain"] is None
    assert found["rollout_share_of_peak"] == 0.5
    tables = lay_out_results({**found, "contenders": measured, "limits": limits})
    assert "| generate: rollouts | - | - | - | out of memory |" in tables
    assert "| the tree: update | 1.50 (1.50 to 1.50) | 0.75 | 0.5 | float32 |" in tables


@pytest.mark.slow
def test_a_whole_bench_with_trl(tmp_path: Path) -> None:
    folder, _ = bench(SMALL, tmp_path / "out", True, {"group_size": (2, 4)}, progress=False)
    found = json.loads((folder / "bench.json").read_text())
    assert {*room.SPEEDUPS, "rollout_share_of_peak", "update_share_of_peak", "memory_ratio_vs_trl"} <= found.keys()
    measured = found["contenders"]
    for name in ("tree", "generate", "padded", "trl"):
        assert "error" not in measured[name], measured[name]
    assert len(measured["trl"]["seconds"]) == SMALL.steps
    assert found["step_speedup_vs_trl"] == pytest.approx(measured["trl"]["seconds"][0] / measured["tree"]["seconds"][0])
    assert (folder / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "](cost.png)" in (folder / "report.md").read_text()


def test_a_book_serves_and_too_short_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("A lift waits on floor 3. " * 400, encoding="utf-8")
    (tmp_path / "note.txt").write_text("A lift waits on floor 3.", encoding="utf-8")
    policy = load_policy("micro", "cpu", "float32")
    book = MeasuredStep(replace(SMALL, corpus=str(tmp_path / "book.txt")), policy)
    assert [len(text.ids) for text in book.texts] == [48, 48]  # prefix 20, spacing 4, and 24 after the positions
    with pytest.raises(UserError, match=r"gives 1 texts of up to 48 tokens, .* \(2\); lower --documents"):
        MeasuredStep(replace(SMALL, corpus=str(tmp_path / "note.txt")), policy)
