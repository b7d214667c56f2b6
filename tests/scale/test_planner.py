"""The plan: compared with real models, with steps that were measured on a CPU and a GPU, and the page with the plan."""

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from rmt_mini.config import RMTConfig, preset
from rmt_mini.engine.memory import measure
from rmt_mini.errors import UserError
from rmt_mini.scale import planner
from rmt_mini.scale.launch import ScaleSettings
from rmt_mini.scale.planner import KNOWN, MACHINES, Machine, estimate, forecast, plan_run, size_of
from tests.fakes import SHAPES, make_tiny_policy, tiny_model
from tests.stages.tiny import small

ROOT = Path(__file__).resolve().parents[2]
CPU = json.loads((ROOT / "data/bench/bench.json").read_text())  # 2 cores of an AMD EPYC, Zen 5
GPU = json.loads((ROOT / "data/bench/h200.json").read_text())
THIS_CPU = Machine("cpu", CPU["limits"]["products"][CPU["contenders"]["tree"]["dtype"]], training=0.6)
PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", SHAPES)
def test_size_is_that_of_a_real_model(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    found = size_of(str(tmp_path))
    assert found == measure(model)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.arange(7)[None], past_key_values=cache, use_cache=True)
    assert found.cached * 7 == sum(one.numel() for layer in cache.layers for one in (layer.keys, layer.values))


@pytest.mark.parametrize(
    ("name", "machine", "branch_tokens", "measured"),
    [("CPU", THIS_CPU, 512, CPU | CPU["contenders"]), ("H200", MACHINES["h200"], 16384, GPU)],
    ids=["CPU", "H200"],
)
def test_plan_is_what_was_measured_within_a_factor_of_two(
    name: str, machine: Machine, branch_tokens: int, measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "LONGEST", 1.0)  # a benchmark's thoughts are all of one length
    setting = measured["setting"]
    config = RMTConfig(
        documents_per_step=setting["documents"],
        positions_per_document=setting["positions"],
        group_size=setting["group_size"],
        document_tokens=2 * setting["prefix"],
        budget_start=setting["thought_tokens"],
        budget_min=setting["thought_tokens"],
        branch_tokens=branch_tokens,
        answer_format="continuation",
    )
    settings = ScaleSettings(micro_batch=measured["trl"]["micro_batch"], checkpointing=False)
    tree, trl = (estimate(config, KNOWN["smollm2-135m"], machine, way, settings) for way in ("tree", "trl"))
    for row, estimated, found in (
        ("tree: sampling, s", tree.step["sampling"], median(measured["tree"]["rollout_seconds"])),
        ("tree: update, s", tree.step["update"], median(measured["tree"]["update_seconds"])),
        ("tree: memory, GB", tree.memory / 1e9, measured["tree"]["peak_memory_mb"] / 1e3),
        ("TRL: a step, s", sum(trl.step.values()), median(measured["trl"]["seconds"])),
        ("TRL: memory, GB", trl.memory / 1e9, measured["trl"]["peak_memory_mb"] / 1e3),
    ):
        assert 0.5 < estimated / found < 2, (row, estimated, found)
        assert f"| {name}, {row} | {estimated:.1f} | {found:.1f} | {estimated / found:.2f} |" in PAGE


def test_several_gpus_divide_time_share_memory_and_send() -> None:
    config = preset("paper")
    size = KNOWN[config.model]
    one, eight, few, many = (
        estimate(config, size, MACHINES["h100"], way, ScaleSettings(micro_batch=micro), gpus)
        for way, gpus, micro in (("trl", 1, 8), ("trl", 8, 8), ("trl-vllm", 8, 8), ("trl-vllm", 8, 2))
    )
    assert one.memory - eight.memory > 7 / 8 * 16 * size.parameters
    assert one.step["update"] == pytest.approx(8 * eight.step["update"])
    assert one.sent == 0 < few.sent < many.sent  # smaller passes gather more often
    assert eight.sent > few.sent  # weights are gathered for every sampled token
    with pytest.raises(UserError, match="the size of model 'who/knows' is not known"):
        size_of("who/knows")


def test_plan_here_is_finite_and_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "product_rate", lambda *_: 1e9)
    policy = make_tiny_policy()
    once = plan_run(small(warmup_steps=0), policy)
    assert once.seconds[0] == 0
    assert all(0 < value < math.inf for value in (once.step["sampling"], once.step["update"], once.memory))
    twice = plan_run(small(warmup_steps=2, updates_per_step=2, clip_epsilon=0.2), policy)
    assert twice.seconds[0] > 0
    assert twice.step["update"] == pytest.approx(2 * once.step["update"])


@pytest.mark.parametrize(
    ("name", "way", "gpus", "machines"),
    [
        *[("laptop", way, 1, 1) for way in ("tree", "trl")],
        *[("gpu", way, 1, 1) for way in ("tree", "trl", "trl-vllm")],
        *[("paper", "tree", 1, 1), ("paper", "trl", 8, 2), ("paper", "trl-vllm", 8, 1), ("paper", "trl-vllm", 8, 2)],
    ],
)
def test_page_shows_what_the_plan_says(name: str, way: str, gpus: int, machines: int) -> None:
    config = preset(name)
    config = config.replace(document_tokens=min(config.document_tokens, 512))
    lines = forecast(config, gpus, machines, way=way)
    assert [line[:12].strip() for line in lines] == ["estimate", "rollouts", "tokens", "time", "a step", "memory"]
    step, memory = lines[4][13:].removeprefix("about ").partition(" (")[0], lines[5][13:].removeprefix("about ")
    row = f"| {name} | {way} | {gpus * machines} | {step} | {memory.replace(' at the peak', '')} |"
    assert row in PAGE, row
