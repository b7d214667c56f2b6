"""The benchmark: every contender does the same work, and a figure is what its measurements say."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import torch

from rmt_mini.bench import bench as room
from rmt_mini.bench import parts
from rmt_mini.bench.bench import bench, best, climb, lay_out_results, limited, micro_batches, ratios, run_part
from rmt_mini.bench.parts import (
    LOOP,
    PARTS,
    MeasuredStep,
    _operations,
    another_program,
    material,
    padded_update,
    positions_for,
    prompts_for,
    sample,
    tree,
)
from rmt_mini.bench.sizes import FIXED, ROWS, SWEEPS, Setting, rows_named
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
        bench(Setting(model=str(tmp_path / "absent")), tmp_path / "out", ["tree"])
    assert not (tmp_path / "out").exists()
    found = run_part("generate", SMALL)
    assert len(found["seconds"]) == SMALL.steps
    assert found["peak_memory_mb"] > 100
    (tmp_path / "note.txt").write_text("A lift waits on floor 3.", encoding="utf-8")
    with pytest.raises(UserError, match=r"is too short for 2 documents of 48 tokens; lower --documents or --prefix"):
        prompts_for(SMALL.replace(corpus=str(tmp_path / "note.txt")), load_policy("micro", "cpu", "float32"))


def test_documents_are_joined_where_none_is_long_enough() -> None:
    """The longest of the micro-world has some 100 tokens."""
    policy = load_policy("micro", "cpu", "float32")
    setting = SMALL.replace(prefix=400, positions=4)
    config, texts = material(setting, policy)
    assert [len(text.ids) for text in texts] == [config.document_tokens] * 2
    assert texts[0].ids != texts[1].ids
    places = [one.index for one in positions_for(setting)]
    assert (min(places), max(places), max(places) < len(texts[0].ids)) == (394, 406, True)


@pytest.mark.parametrize(
    ("seconds", "asked", "fastest"),
    [
        ([9, 7, 8], [8, 16, 32], 16),
        ([9, 9.5], [8, 16], 8),
        ([9, None], [8, 16], 8),
        ([9, 7, 5, 3], [8, 16, 32, 64], 64),
        ([None], [8], 8),
    ],
)
def test_micro_batches_grow_while_they_are_faster(
    seconds: list[float], asked: list[int], fastest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter({"error": "killed"} if now is None else {"seconds": [now]} for now in seconds)
    monkeypatch.setattr(room, "run_part", lambda *_, **more: next(left) | more)
    *_, found = climb(Setting(), "trl")
    assert [one["micro_batch"] for one in found] == asked
    assert best(found)["micro_batch"] == fastest
    assert list(climb(Setting(documents=1, positions=1, group_size=2), "trl")) == []


def test_a_micro_batch_divides_the_rollouts() -> None:
    assert micro_batches(Setting()) == [8, 16, 32, 64]
    # with 8 at a time TRL would train on 32 of 34, and it refuses 26 of 27, which are no whole groups of 3
    assert micro_batches(Setting(documents=1, positions=17, group_size=2)) == [17, 34]
    assert micro_batches(Setting(documents=1, positions=9, group_size=3)) == [27]


def test_only_the_faster_dtype_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("bfloat16", 8): 7, ("float32", 8): 5, ("float32", 16): 6}
    monkeypatch.setattr(room, "run_part", lambda *_, **more: {"seconds": [seconds[tuple(more.values())]]} | more)
    *_, found = climb(Setting(), "trl", [{"dtype": "bfloat16"}, {"dtype": "float32"}])
    assert [(one["dtype"], one["micro_batch"]) for one in found] == [*seconds]
    assert best(found)["seconds"] == [5]


# Processes


def wait_for(ended: int) -> None:
    """Wait until a process has gone; pytest's own time limit ends a test where it stays."""
    while psutil.pid_exists(ended) and psutil.Process(ended).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_the_other_program_computes_and_ends_with_the_block() -> None:
    before = {*psutil.Process().children()}  # of other tests, such as loky's

    def inside() -> int:
        with another_program():
            (child,) = {*psutil.Process().children()} - before
            while child.cpu_times().user == 0:
                time.sleep(0.01)
            raise KeyboardInterrupt(str(child.pid))

    with pytest.raises(KeyboardInterrupt) as stopped:
        inside()
    assert not psutil.pid_exists(int(str(stopped.value)))


def test_the_other_program_ends_with_a_parent_that_is_killed() -> None:
    code = "import os, subprocess, sys, time\n"
    code += "print(subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]).pid, flush=True)\n"
    code += "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, LOOP], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    wait_for(child)


def test_what_takes_too_long_is_ended_with_all_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    inner = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with pytest.raises(subprocess.TimeoutExpired):
        limited([sys.executable, "-c", outer], 3)
    wait_for(int(note.read_text()))
    monkeypatch.setattr(room, "limited", lambda command, seconds, **_: limited([command[0], "-c", inner], seconds))
    assert run_part("tree", SMALL, 0.01, micro_batch=8) == {"error": "it took longer than 0 s", "micro_batch": 8}


def test_parts_wait_as_the_package_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the bench says, so that the row with another program is that of a user."""
    seen: dict[str, str] = {}

    def look(command: list[str], _: None, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, '{"seconds": [1]}', "")

    for name in room.WAITING:
        monkeypatch.setenv(name, "active")
    monkeypatch.setattr(room, "limited", look)
    assert run_part("busy", SMALL) == {"seconds": [1]}
    assert not {*room.WAITING} & seen.keys()
    assert seen["PATH"] == os.environ["PATH"]


# Results


def test_the_page_has_what_was_measured_on_a_gpu() -> None:
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
    readme = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    assert sentence in readme
    operations = tree["rollout_operations"] + tree["update_operations"]
    alone = operations / found["limits"]["products"][tree["dtype"]]
    assert f"arithmetic alone is {alone:.2f} s at the card's rate" in readme


def test_the_page_has_what_was_measured_on_a_cpu() -> None:
    found = json.loads((ROOT / "data/bench/bench.json").read_text())
    rows, rates, readme = found["contenders"], found["limits"]["products"], (ROOT / "docs/speed.md").read_text("utf-8")

    def line(name: str, row: str, stages: Sequence[str] = (), memory: bool = True) -> str:
        one = rows[row]
        seconds = median(one[f"{stages[0]}_seconds" if len(stages) == 1 else "seconds"])
        alone = sum(one[f"{stage}_operations"] for stage in stages) / rates[rows["tree"]["dtype"]]
        most = f"{one['peak_memory_mb'] / 1000:.1f} " if memory else ""
        return f"| {name} | {seconds:.1f} | {f'{alone:.1f} ' if stages else ''}| {most}|\n"

    both = ("rollout", "update")
    for expected in (
        line("the tree: a step", "tree", both),
        line("of it, rollouts", "tree", ["rollout"], memory=False),
        line("of it, update", "tree", ["update"], memory=False),
        line("the tree: a step while another program computes", "busy"),
        line("TRL's GRPOTrainer: a step (micro-batch 8; 16 is slower)", "trl"),
        line("transformers' `generate`: rollouts", "generate"),
        line("padded rows: update", "padded"),
        line("the tree: a step at a prefix of 500 tokens", "tree_long", both),
        line("TRL's GRPOTrainer: a step at a prefix of 500 tokens", "trl_long"),
    ):
        assert expected in readme
    trials = {(one["dtype"], one["micro_batch"]): median(one["seconds"]) for one in rows["trl_trials"]}
    assert min(trials, key=lambda way: trials[way]) == ("bfloat16", 8)
    assert trials["bfloat16", 16] > trials["bfloat16", 8]
    text = " ".join(readme.split())
    for sentence in (
        "a step is {step_speedup_vs_trl:.1f} times as fast as TRL's at 125 tokens and "
        "{step_speedup_vs_trl_long_prefix:.1f} times at 500, in {memory_ratio_vs_trl:.2f} and "
        "{memory_ratio_vs_trl_long_prefix:.2f} of its memory",
        "Rollouts are {rollout_speedup_vs_generate:.1f} times as fast as `generate` and run at "
        "{rollout_share_of_peak:.0%} of the machine's rate",
        "the update is {update_speedup_vs_plain:.1f} times as fast as padded rows and at {update_share_of_peak:.0%}.",
    ):
        assert sentence.format(**found).replace("%", " %") in text
    assert f"({rates['bfloat16'] / 1e9:.0f} GFLOP/s)" in text
    assert found["step_speedup_vs_trl"] < 6  # "is missed"
    step, theirs = (median(rows[name]["seconds"]) for name in ("tree", "trl"))
    short = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"takes {step:.1f} s, where TRL's GRPOTrainer takes {theirs:.1f}" in short
    assert (
        "{step_speedup_vs_trl:.1f} times as fast, in {memory_ratio_vs_trl:.2f} of its memory".format(**found) in short
    )
    ours, theirs = (median(rows[f"{name}_long"]["seconds"]) / median(rows[name]["seconds"]) for name in ("tree", "trl"))
    lesson = (ROOT / "notebooks/07_document_tree.ipynb").read_text("utf-8")
    assert f"the tree's step takes {ours:.1f} times as long, and TRL's {theirs:.1f} times" in lesson


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
    assert not {"slowdown_beside_another_program", "step_speedup_vs_trl_long_prefix"} & found.keys()  # not tried
    tables = lay_out_results({"contenders": measured, "limits": limits})
    assert "| generate: rollouts | - | - | - | out of &#124; memory |" in tables
    assert "| padded rows: update | - | - | - | not measured |" in tables
    assert "| the tree: update | 1.50 (1.50 to 1.50) | 0.75 | 0.5 | float32 |" in tables
    assert "another program" not in tables
    far = {
        "tree_long": {**one, "prefix": 500},
        "trl_long": {"seconds": [20.0], "peak_memory_mb": 2000.0, "prefix": 500},
    }
    more = {"busy": {**one, "seconds": [4.4]}, **far}
    compared = ratios(limits, measured | more)
    assert compared["slowdown_beside_another_program"] == 2.2
    assert compared["step_speedup_vs_trl_long_prefix"] == 10
    assert compared["memory_ratio_vs_trl_long_prefix"] == 0.25
    assert "step_speedup_vs_trl" not in ratios(limits, more)
    tables = lay_out_results({"contenders": measured | more, "limits": limits})
    assert "| the tree: step, with another program computing | 4.40 (4.40 to 4.40) | - | 0.5 | float32 |" in tables
    assert "| TRL: step, prefix 500 | 20.00 (20.00 to 20.00) | - | 2.0 |  |" in tables
    assert "| slowdown_beside_another_program | 2.20 |" in tables


def test_rows_are_asked_for_by_name() -> None:
    assert rows_named([]) == [*ROWS]
    assert rows_named(["sweeps", "trl", "tree"]) == ["tree", "trl", *SWEEPS]
    assert rows_named(["trl", "group-size", "tree"]) == ["tree", "trl", "group_size"]


def test_a_whole_bench_with_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is measured, here; that a process of its own serves a part, another test shows."""
    pytest.importorskip("trl")
    # TRL is not tried in bfloat16, which takes ten times as long
    monkeypatch.setattr(parts, "product_rate", lambda _, dtype, *__: {torch.float32: 4e9, torch.bfloat16: 4e8}[dtype])
    monkeypatch.setattr(room, "SWEEPS", {"prefix": [20, 60], "group_size": [2, 4]})
    calls: list[tuple[str, int, int]] = []

    def here(name: str, setting: Setting, **more: Any) -> dict[str, Any]:
        calls.append((name, setting.prefix, setting.group_size))
        return PARTS[name](setting, **more) | {"peak_memory_mb": 100.0}

    monkeypatch.setattr(room, "run_part", here)
    rows = [row for row in ROWS if row not in ("positions", "thought_tokens")]
    folder, _ = bench(SMALL.replace(long_prefix=60, documents=1), tmp_path / "out", rows)
    found = json.loads((folder / "bench.json").read_text())
    assert found.keys() >= FIXED["ratios"].keys()
    measured = found["contenders"]
    assert {one["dtype"] for one in measured["trl_trials"]} == {"float32"}
    named = ("tree", "busy", "generate", "padded", "trl", "tree_long", "trl_long")
    assert [len(measured[one]["seconds"]) for one in named] == [1] * 7
    assert found["step_speedup_vs_trl"] == pytest.approx(measured["trl"]["seconds"][0] / measured["tree"]["seconds"][0])
    swept = found["sweeps"]
    assert [point["value"] for point in swept["group_size"]["points"]] == [2, 4]
    assert [calls.count(("tree", *sizes)) for sizes in ((20, 4), (60, 4), (20, 2))] == [1, 1, 1]  # none twice
    assert [point["value"] for point in swept["prefix"]["trl"]] == [20, 60]
    assert [point["value"] for point in swept["group_size"]["trl"]] == [4]
    assert (folder / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert "](cost.png)" in (folder / "report.md").read_text()


def test_an_interrupted_bench_leaves_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = {
        "dtype": "float32",
        "peak_memory_mb": 5.0,
        "products": {"float32": 1.0, "bfloat16": 0.1},
        "copy_bandwidth": 1,
    }
    times = {name: [2.0] for name in ("seconds", "rollout_seconds", "update_seconds")}

    def part(name: str, *_: Any, **more: Any) -> dict[str, Any]:
        if name == "padded":
            raise KeyboardInterrupt
        return {**one, **times, "rollout_operations": 1.0, "update_operations": 1.0, **more}

    monkeypatch.setattr(room, "run_part", part)
    with pytest.raises(KeyboardInterrupt):
        bench(SMALL, tmp_path / "out", ["tree", "busy", "trl", "padded", "prefix"])
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [*found["contenders"]] == ["tree", "busy", "trl", "trl_trials"]
    assert (found["step_speedup_vs_trl"], found["slowdown_beside_another_program"]) == (1, 1)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| TRL: step | 2.00" in report
    assert "padded" not in report
