"""The plan for other machines: held to real models, to what was measured on a CPU, and the page to the plan."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from rmt_mini.config import PRESETS, preset
from rmt_mini.errors import UserError
from rmt_mini.scale import table
from rmt_mini.scale.clock import times_of, tokens_read, traffic
from rmt_mini.scale.cost import MACHINES, Assumed, Cluster, Work, lora_parameters, measured_machine, memory_of, peak
from rmt_mini.scale.forecast import forecast
from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.shape import KNOWN, shape_from, shape_of
from tests.fakes import SHAPES, tiny_config, tiny_model

ROOT = Path(__file__).resolve().parents[2]
BENCH = json.loads((ROOT / "data/bench/bench.json").read_text())  # 2 cores of an AMD EPYC, Zen 3; 2026-11-24
PUBLISHED = {  # parameters, as the makers' model cards and weights have them
    "smollm2-135m": 134_515_008,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
}


@pytest.mark.parametrize("kind", SHAPES)
def test_parameters_and_cache_are_those_of_a_real_model(kind: str) -> None:
    model = tiny_model(kind)
    shape = shape_from(tiny_config(kind, 259).to_dict())
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.head == model.get_output_embeddings().weight.numel()
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.arange(7)[None], past_key_values=cache, use_cache=True)
    held = sum(tensor.numel() for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert shape.kv_bytes(4) * 7 == held * 4
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert lora_parameters(shape, 3) == trained


def test_known_shapes_have_the_published_sizes() -> None:
    assert {name: shape.parameters for name, shape in KNOWN.items()} == PUBLISHED
    assert {PRESETS[name]["model"] for name in ("gpu", "paper")} <= KNOWN.keys()
    micro = shape_of(str(ROOT / "data/micro/checkpoint"))
    assert 0.9e6 < micro.parameters < 1.1e6


def test_unknown_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model 'who/knows': its size is not known; give a folder"):
        shape_of("who/knows")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="model_type is 'gpt2'; sizes are known for llama, qwen2, qwen3"):
        shape_of(str(tmp_path))


# Against what was measured


def bench_work(frame: int, trunks: int) -> Work:
    setting = BENCH["setting"]
    positions = setting["documents"] * setting["positions"]
    thought = setting["thought_tokens"]
    return Work(
        positions * setting["group_size"], positions, trunks, trunks // 2, setting["prefix"], thought, thought, frame
    )


def bench_cluster() -> Cluster:
    limits = BENCH["limits"]
    return Cluster(measured_machine(limits["products"]["float32"], limits["copy_bandwidth"], 16e9))


ON_A_CPU = Assumed(training=0.6, starting=0.0)  # the shares of runs/plan.py
SPREAD = ScaleSettings(micro_batch=8, checkpointing=False, cpu=True)
DOCUMENTS = 2 * 250  # tokens


def median(part: str, of: str = "seconds") -> float:
    return statistics.median(BENCH["contenders"][part][of])


def comparison() -> list[tuple[str, float, float]]:
    """Name, estimate, measurement by ``rmt-mini bench``: SmolLM2-135M, 64 rollouts of 24 tokens, one process."""
    shape, cluster = KNOWN["smollm2-135m"], bench_cluster()
    whole = bench_work(frame=20, trunks=DOCUMENTS)
    tree = times_of("tree", shape, whole, cluster, SPREAD, ON_A_CPU)
    rows = times_of("trl", shape, whole, cluster, SPREAD, ON_A_CPU)
    # the contender samples once and reads no documents; vLLM's way of counting reads each prefix once, so take rows
    bare = bench_work(frame=0, trunks=0)
    once = times_of("trl", shape, bare, cluster, SPREAD, ON_A_CPU)
    generate = once.reading * bare.prefix / (2 * bare.prefix + bare.branch) + once.decoding
    memory = {
        way: peak(memory_of(way, shape, work, cluster, SPREAD)) / 1e9 for way, work in (("tree", whole), ("trl", bare))
    }
    held = {way: BENCH["contenders"][way]["peak_memory_mb"] / 1e3 for way in memory}
    return [
        ("tree: rollouts, s", tree.reading + tree.decoding, median("tree", "rollout_seconds")),
        ("tree: update, s", tree.update, median("tree", "update_seconds")),
        ("tree: peak memory, GB", memory["tree"], held["tree"]),
        ("transformers' generate: rollouts, s", generate, median("generate")),
        ("padded rows: update, s", rows.update, median("padded")),
        ("TRL: step, s", generate + once.update, median("trl")),
        ("TRL: peak memory, GB", memory["trl"], held["trl"]),
    ]


def test_plan_is_what_was_measured_within_a_factor_of_one_and_a_half() -> None:
    for name, estimated, measured in comparison():
        assert 1 / 1.5 < estimated / measured < 1.5, (name, estimated, measured)


# What must follow


def test_sharding_divides_what_it_should() -> None:
    shape, work = KNOWN["Qwen/Qwen3-14B"], table.work_of(preset("paper"))
    one, many = (Cluster(MACHINES["h100"], gpus, sharded=True) for gpus in (1, 16))
    alone, shared = (memory_of("trl-vllm", shape, work, cluster, ScaleSettings()) for cluster in (one, many))
    for part in ("gradients", "optimizer"):
        assert shared[part] == pytest.approx(alone[part] / 16)
    assert alone["weights"] + alone["gradients"] + alone["optimizer"] == 16 * shape.parameters
    light = memory_of("trl", shape, work, one, ScaleSettings(lora_rank=16))
    assert light["gradients"] + light["optimizer"] < 0.02 * (alone["gradients"] + alone["optimizer"])


def test_tree_reads_less_the_more_share_a_prefix() -> None:
    for document, rollouts in ((512, 64), (4096, 64), (512, 1024)):
        work = Work(rollouts, 8, document, document, document / 2, 24, 48, 20)
        rows, tree = tokens_read("trl", work), tokens_read("tree", work)
        saved = rows["trained"] - tree["trained"]
        assert saved == rollouts * document / 2  # each rollout's own copy of its prefix
        assert tree["sampled"] == rows["sampled"]
        assert tree["read"] < rows["read"]


def test_traffic_of_a_copy_on_each_is_one_all_reduce() -> None:
    shape, work = KNOWN["smollm2-135m"], bench_work(20, DOCUMENTS)
    four = Cluster(MACHINES["h100"], 4)
    assert traffic("trl", shape, work, four, SPREAD) == pytest.approx(2 * 3 / 4 * 4 * shape.parameters)
    sharded = Cluster(MACHINES["h100"], 4, sharded=True)
    few, many = (ScaleSettings(micro_batch=size) for size in (8, 2))
    assert traffic("trl-vllm", shape, work, sharded, many) > traffic("trl-vllm", shape, work, sharded, few)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpus": 1}, ["1 x h100, trl", "0 GB sent"]),
        ({"gpus": 8, "machines": 2, "name": "paper"}, ["16 x h100, trl-vllm", "optimizer 11.1"]),
        ({"gpus": 1, "name": "paper", "way": "tree"}, ["DOES NOT FIT 80"]),
        ({"gpus": 2, "gpu": "h200", "way": "trl"}, ["2 x h200, trl"]),
    ],
)
def test_forecast_says_memory_time_and_traffic(changes: dict[str, Any], words: list[str]) -> None:
    name = changes.pop("name", "gpu")
    said = "\n".join(forecast(preset(name), **changes))
    assert all(word in said for word in words), said
    assert [line.split()[0] for line in said.splitlines()] == [
        "simulated", "rollouts", "memory", "time", "traffic", "assumed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"gpu": "v100"}, "gpu is 'v100'; use one of a100, h100, h200"), ({"way": "fsdp"}, "way is 'fsdp'; use one of")],
)
def test_unknown_wishes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        forecast(preset("gpu"), 1, **changes)


def test_page_shows_what_the_plan_says() -> None:
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    for name, estimated, measured in comparison():
        row = f"| {name} | {estimated:.1f} | {measured:.1f} | {estimated / measured:.2f} |"
        assert row in page, row
    for part in (table.throughput_table, table.budget_table, table.savings_table, table.assumptions):
        assert "\n".join(part()) in page, f"{part.__name__}: run python -m rmt_mini.scale.table and paste"
