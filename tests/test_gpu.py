"""On a GPU: the same run as on the CPU, what is sampled, Qwen3's widths, memory that runs out, the layer on TRL.

Each skips where PyTorch sees none. ``pytest -m gpu`` runs them, and those of the rooms, on a machine that has one.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rmt_mini.config import RMTConfig, preset
from rmt_mini.engine.model import load_policy, make_policy
from rmt_mini.engine.prompt import Continuation
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.tree import DocumentTree
from rmt_mini.errors import UserError
from rmt_mini.records import Position
from rmt_mini.runs.run import resume, run
from tests.engine.plain_twin import twin_step
from tests.engine.test_rollout import every_outcome, goodness_of_fit
from tests.engine.test_tree import TEXTS, assert_equal_steps, gradient_gap, make_work, tree_step
from tests.fakes import BareFormat, byte_tokenizer, make_tiny_policy, tiny_config, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"),
]
ROOT = Path(__file__).resolve().parents[1]
QWEN3 = {
    "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip # of Qwen3-0.6B, whose heads together are wider than its states
MEASURED = {"rollout_seconds", "update_seconds", "trunk_seconds", "peak_memory_mb"}  # no two runs agree in these


def micro(out: Path, **changes: Any) -> RMTConfig:
    small = {"evaluation_positions": 60, "evaluation_documents": 20, "preflight_positions": 9, "steps": 3}
    return preset("micro", **{"out": str(out), **small, **changes})


def lines_of(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines_of(folder)]


def test_a_run_on_a_gpu_is_the_run_on_the_cpu(tmp_path: Path) -> None:
    """In float64, where no last digit decides what is sampled."""
    results = [run(micro(tmp_path / d, device=d, dtype="float64"), progress=False) for d in ("cpu", "cuda")]
    one, other = (metrics(result.folder) for result in results)
    assert len(one) == 3
    for ours, theirs in zip(one, other, strict=True):
        assert ours["rl_loss"] != 0
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    answers = [lines_of(result.folder, "answers.jsonl") for result in results]
    for first, second in zip(*answers, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            # bits of a sure token are a small difference: transformers' norms are float32 even in a float64 model
            near = pytest.approx(value, rel=1e-5, abs=1e-9) if isinstance(value, float) else value
            assert second[name] == near, name


def test_a_gpu_run_is_in_bfloat16_and_leaves_a_model_that_the_cpu_opens(tmp_path: Path) -> None:
    result = run(micro(tmp_path / "run", dtype="auto", steps=2), progress=False)
    # of the GPU, not of the process
    assert all(0 < line["peak_memory_mb"] < 20_000 for line in lines_of(result.folder))
    policy = load_policy(str(result.folder / "checkpoint"), "cpu")
    assert all(bool(parameter.isfinite().all()) for parameter in policy.model.parameters())


@pytest.mark.parametrize(("shape", "temperature"), [("llama", 1.0), ("qwen3", 0.6)])
def test_what_a_gpu_samples_follows_the_exact_distribution(shape: str, temperature: float) -> None:
    """As on the CPU: seven tokens and thoughts of up to 2, so that every outcome has a probability to compare with."""
    exact, form, trunk, group = make_tiny_policy(shape, vocabulary=7, seed=1), BareFormat(), [0, 2, 1, 5, 4, 0, 2], 4000
    policy = make_policy("tiny", tiny_model(shape, vocabulary=7, seed=1).to("cuda"), None)
    with torch.no_grad():
        trunks = policy.tree.read([trunk])
    position, asking = Position(0, 6, 0, 0.0), Asking([None], [2], temperature)
    rollouts = roll_out(policy, form, trunks, [position], group, asking, torch.Generator().manual_seed(2))
    outcomes = every_outcome(exact, form, trunk, 6, 2, temperature)
    seen = Counter((one.thought, one.closed, *one.answer) for one in rollouts)
    assert set(seen) <= set(outcomes)
    assert goodness_of_fit(seen, outcomes, group) > 0.001
    for one in rollouts[:50]:
        chance = outcomes[one.thought, one.closed, *one.answer]
        assert torch.tensor(one.logprobs).sum().exp().item() == pytest.approx(chance, rel=1e-3)


def test_the_tree_serves_qwen3_at_its_own_widths() -> None:
    """In float64 exactly; in bfloat16, at weights as before training, as near as two orders of a sum are."""
    torch.manual_seed(0)
    soft: Any = AutoModelForCausalLM.from_config(tiny_config("qwen3", 259, **QWEN3))
    for model in (tiny_model("qwen3", torch.float64, **QWEN3), soft.to(torch.bfloat16)):
        policy = make_policy("qwen3", model.to("cuda"), byte_tokenizer())
        assert isinstance(policy.tree, DocumentTree)
        form = Continuation(policy.tokenizer)
        work = make_work(form, TEXTS)
        theirs = twin_step(policy.model, form, work)
        ours = tree_step(policy, form, work)
        if policy.dtype == torch.float64:
            assert_equal_steps(ours, theirs, policy.dtype)
        assert gradient_gap(ours, theirs) < 0.1


def test_memory_that_runs_out_is_reported_and_the_run_goes_on(tmp_path: Path) -> None:
    """A real one: the process may take 500 MB of the GPU, and an update on 1,280 rollouts at once wants more."""
    config = micro(tmp_path / "run", device="cuda", dtype="float32", group_size=64, branch_tokens=65536, steps=1)
    gc.collect()  # graphs of other tests' policies
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(500e6 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(UserError, match=r"^out of memory; the run needs about .* are free now; lower --branch-tok"):
            run(config, progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    resume(tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "done"


def test_the_layer_on_trl_trains_on_a_gpu_and_goes_on(tmp_path: Path) -> None:
    """As ``rmt-mini launch --setup one-gpu`` starts it: through accelerate, in bfloat16."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from rmt_mini.cli import main; main()", "launch", "micro", "--setup", "one-gpu"]
    command += ["--steps", "4", "--documents-per-step", "4", "--save-every", "2", "--dtype", "bfloat16"]
    command += ["--out", str(out), "--run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for begun in (0, 2):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("going on from" in done.stderr) is bool(begun)
        lines = metrics(out)
        assert [line["step"] for line in lines] == [0, 1, 2, 3]
        assert any(line["rl_loss"] != 0 for line in lines)
        assert all(line["grad_norm"] > 0 for line in lines)
        load_policy(str(out / "checkpoint"), "cpu")
        for late in ("checkpoint", "checkpoint-4"):  # as if the run had been killed after its second step
            shutil.rmtree(out / late)
