"""The plan: compared with real models, with steps that were measured on a CPU and a GPU, and the page with the plan."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.runs.capacity import measure
from rmt_mini.scale import planner
from rmt_mini.scale.planner import KNOWN, MACHINES, Machine, Plan, estimate, forecast, plan_run, size_of
from rmt_mini.scale.settings import ScaleSettings
from tests.fakes import SHAPES, make_tiny_policy, tiny_model
from tests.stages.tiny import small

ROOT = Path(__file__).resolve().parents[2]
CPU = json.loads((ROOT / "data/bench/bench.json").read_text())  # 2 cores of an AMD EPYC, Zen 3
GPU = json.loads((ROOT / "data/bench/h200.json").read_text())


@pytest.mark.parametrize("kind", SHAPES)
def test_size_is_that_of_a_real_model(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    model.config.save_pretrained(tmp_path)
    assert size_of(str(tmp_path)) == measure(model)
    assert measure(model).parameters == sum(parameter.numel() for parameter in model.parameters())
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.arange(7)[None], past_key_values=cache, use_cache=True)
    held = sum(tensor.numel() for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert measure(model).cached * 7 == held


def test_models_of_the_presets_are_known_and_others_are_named(tmp_path: Path) -> None:
    assert {PRESETS[name]["model"] for name in ("gpu", "paper")} | {preset("laptop").model} <= KNOWN.keys()
    assert 0.9e6 < size_of(str(ROOT / "data/micro/checkpoint")).parameters < 1.1e6
    with pytest.raises(UserError, match="model 'who/knows': its size is not known; give a folder"):
        size_of("who/knows")


# Compared with what was measured


def plan_of(way: str, bench: dict[str, Any], machine: Machine, micro_batch: int, branch_tokens: int) -> Plan:
    """Plan the step that a benchmark timed: thoughts of one length, no chat format."""
    setting = bench["setting"]
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
    return estimate(
        config, KNOWN["smollm2-135m"], machine, way, ScaleSettings(micro_batch=micro_batch, checkpointing=False)
    )


def comparison() -> list[tuple[str, float, float]]:
    """Name, estimate and measurement by ``rmt-mini bench``."""
    cpu = Machine("cpu", CPU["limits"]["products"]["float32"], training=0.6)
    there = {"CPU": (cpu, 8, 512, CPU["contenders"]), "H200": (MACHINES["h200"], 128, 16384, GPU)}
    rows = []
    for name, (machine, micro_batch, branch_tokens, measured) in there.items():
        bench = CPU if name == "CPU" else GPU
        tree, trl = (plan_of(way, bench, machine, micro_batch, branch_tokens) for way in ("tree", "trl"))
        rows += [
            (f"{name}, tree: sampling, s", tree.step["sampling"], median(measured["tree"]["rollout_seconds"])),
            (f"{name}, tree: update, s", tree.step["update"], median(measured["tree"]["update_seconds"])),
            (f"{name}, tree: memory, GB", tree.memory / 1e9, measured["tree"]["peak_memory_mb"] / 1e3),
            (f"{name}, TRL: a step, s", sum(trl.step.values()), median(measured["trl"]["seconds"])),
            (f"{name}, TRL: memory, GB", trl.memory / 1e9, measured["trl"]["peak_memory_mb"] / 1e3),
        ]
    return rows


def test_plan_is_what_was_measured_within_a_factor_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "LONGEST", 1.0)  # a benchmark's thoughts are all of one length
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    for name, estimated, measured in comparison():
        assert 0.5 < estimated / measured < 2, (name, estimated, measured)
        row = f"| {name} | {estimated:.1f} | {measured:.1f} | {estimated / measured:.2f} |"
        assert row in page, row


# What must follow


def planned(way: str, gpus: int = 1, settings: ScaleSettings | None = None, **changes: Any) -> Plan:
    config = preset("paper", **changes)
    return estimate(config, KNOWN[config.model], MACHINES["h100"], way, settings or ScaleSettings(), gpus)


def test_the_tree_reads_a_prefix_once() -> None:
    """Twice the document costs rows one more prefix a rollout, and the tree one more document."""
    forward, machine = 2 * KNOWN[preset("paper").model].parameters, MACHINES["h100"]
    per_token = 3 * forward / (machine.rate * machine.training)
    more = {
        way: planned(way, document_tokens=1024, settings=ScaleSettings(checkpointing=False)).step["update"]
        - planned(way, document_tokens=512, settings=ScaleSettings(checkpointing=False)).step["update"]
        for way in ("tree", "trl")
    }
    assert more["tree"] == pytest.approx(128 * 512 * per_token)
    assert more["trl"] == pytest.approx((128 * 512 + 1024 * 256) * per_token)


def test_one_gpu_sends_nothing_and_several_send_more_in_smaller_passes() -> None:
    assert planned("trl").sent == 0
    few, many = (planned("trl-vllm", 8, ScaleSettings(micro_batch=size)).sent for size in (8, 2))
    assert 0 < few < many
    assert planned("trl", 8).sent > planned("trl-vllm", 8).sent  # weights are gathered for every sampled token


def test_memory_is_shared_and_time_divided() -> None:
    one, eight = planned("trl", 1), planned("trl", 8)
    weights = 16 * KNOWN[preset("paper").model].parameters
    assert one.memory - eight.memory > 7 / 8 * weights
    assert one.step["update"] == pytest.approx(8 * eight.step["update"])
    assert planned("tree", use_rl=False, use_ntp=True).step["update"] < planned("tree").step["update"]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gpu", {"gpus": 1}, ["1 x h100, trl", "(0 GB from"]),
        ("paper", {"gpus": 8, "machines": 2}, ["14.77B parameters, 16 x h100, trl-vllm"]),
        ("paper", {"gpus": 1, "way": "tree"}, ["DOES NOT FIT 80 GB"]),
        ("gpu", {"gpus": 2, "gpu": "h200", "way": "trl"}, ["2 x h200, trl"]),
    ],
)
def test_forecast_says_time_memory_and_traffic(name: str, changes: dict[str, Any], words: list[str]) -> None:
    lines = forecast(preset(name), **changes)
    assert all(word in "\n".join(lines) for word in words), lines
    assert [line[:12].strip() for line in lines] == ["estimate", "rollouts", "tokens", "time", "a step", "memory"]


@pytest.mark.parametrize(
    ("gpus", "changes", "message"),
    [
        (1, {"gpu": "v100"}, "gpu is 'v100'; use one of a100, h100, h200"),
        (1, {"way": "fsdp"}, "way is 'fsdp'; use one of tree, trl, trl-vllm"),
        (8, {"way": "tree"}, "way is 'tree'; use one of trl, trl-vllm"),
    ],
)
def test_unknown_choices_are_refused(gpus: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        forecast(preset("gpu"), gpus, **changes)


def test_plan_here_is_finite_and_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "product_rate", lambda *_: 1e9)
    policy = make_tiny_policy()
    once = plan_run(small(warmup_steps=0), policy)
    assert once.before == 0
    assert all(0 < value < math.inf for value in (*[once.step[key] for key in ("sampling", "update")], once.memory))
    twice = plan_run(small(warmup_steps=2, updates_per_step=2, clip_epsilon=0.2), policy)
    assert twice.before > 0
    assert twice.step["update"] == pytest.approx(2 * once.step["update"])


def test_page_shows_what_the_plan_says() -> None:
    """Rows of the table in docs/scale.md; a row that differs is printed as it should be."""
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    for name, way, gpus, machines in planner_cases():
        config = preset(name)
        config = config.replace(document_tokens=min(config.document_tokens, 512))
        lines = forecast(config, gpus, machines, way=way)
        step = lines[4].removeprefix("a step       about ").partition(" (")[0]
        memory = lines[5].removeprefix("memory       about ").replace(" at the peak", "")
        row = f"| {name} | {way} | {gpus * machines} | {step} | {memory} |"
        assert row in page, row


def planner_cases() -> list[tuple[str, str, int, int]]:
    return [
        *[("laptop", way, 1, 1) for way in ("tree", "trl")],
        *[("gpu", way, 1, 1) for way in ("tree", "trl", "trl-vllm")],
        ("paper", "tree", 1, 1),
        ("paper", "trl", 8, 2),
        ("paper", "trl-vllm", 8, 1),
        ("paper", "trl-vllm", 8, 2),
    ]
