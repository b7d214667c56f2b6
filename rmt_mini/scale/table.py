"""The tables of docs/scale.md, made from the plan's own functions: ``python -m rmt_mini.scale.table``.

A test holds the page to what this prints.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

from rmt_mini.config import RMTConfig, preset
from rmt_mini.method.schedule import budget_of
from rmt_mini.scale.clock import times_of, tokens_read
from rmt_mini.scale.cost import ASSUMED, MACHINES, Assumed, Cluster, fits, memory_of, peak, work_of
from rmt_mini.scale.launch import SETUPS, scale_settings
from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.shape import KNOWN, Shape

DOCUMENT_TOKENS = 512  # of the paper's data; its own lengths are not known here


@dataclass(frozen=True, slots=True)
class Case:
    """One way of running one preset somewhere."""

    name: str
    way: str
    cluster: Cluster
    settings: ScaleSettings


def cases() -> list[Case]:
    """Return what the throughput table compares, spread as ``rmt-mini launch`` spreads it."""
    h100 = MACHINES["h100"]
    plain, vllm = ScaleSettings(), ScaleSettings(engine="vllm-colocate")
    node = scale_settings("paper", SETUPS["one-node"], {})
    nodes = scale_settings("paper", SETUPS["nodes"], {})
    return [
        *[Case("laptop", way, Cluster(h100), plain) for way in ("tree", "trl")],
        *[Case("gpu", way, Cluster(h100), plain) for way in ("tree", "trl")],
        Case("gpu", "trl-vllm", Cluster(h100), vllm),
        Case("paper", "tree", Cluster(h100), plain),
        Case("paper", "trl", Cluster(h100, 8, 2, sharded=True), plain),
        Case("paper", "trl-vllm", Cluster(h100, 8, 1, sharded=True), node),
        Case("paper", "trl-vllm", Cluster(h100, 8, 2, sharded=True), nodes),
    ]


def settings_of(name: str) -> tuple[RMTConfig, Shape]:
    """Return a preset with documents of DOCUMENT_TOKENS where it allows more, and its model's shape."""
    config = preset(name)
    return config.replace(document_tokens=min(config.document_tokens, DOCUMENT_TOKENS)), KNOWN[config.model]


def throughput_table() -> list[str]:
    """Return the simulated throughput of presets on H100s, a line a case."""
    lines = [
        "| preset, model | way | GPUs | memory a GPU, GB | read, s | decode, s | update, s | send, s | step, s | "
        "rollouts | run, h |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in cases():
        config, shape = settings_of(case.name)
        work = work_of(config)
        parts = memory_of(case.way, shape, work, case.cluster, case.settings)
        needed = peak(parts)
        label = f"| {case.name}, {shape.parameters / 1e9:.2g}B | {case.way} | {case.cluster.processes} "
        if not fits(case.way, parts, shape, case.cluster, case.settings):
            lines.append(f"{label}| {needed / 1e9:.0f}: does not fit | | | | | | | |")
            continue
        times = times_of(case.way, shape, work, case.cluster, case.settings)
        seconds = (times.reading, times.decoding, times.update, times.sending, times.seconds)
        hours = times.seconds * config.steps / 3600
        lines.append(
            f"{label}| {needed / 1e9:.1f} | {' | '.join(f'{one:.3g}' for one in seconds)} | "
            f"{times.rollout_share:.0%} | {hours:.2g} |"
        )
    return lines


def savings_table() -> list[str]:
    """Return what the tree saves at the paper's sizes: tokens of a step, as rows and as a tree."""
    lines = [
        "| document, tokens | positions of it | B_t | read for sampling: rows, tree | trained on: rows, tree | "
        "trained, tree / rows |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    config, _ = settings_of("paper")
    for document, positions, budget in ((512, 1, 800), (512, 1, 160), (2048, 1, 160), (2048, 8, 160), (4096, 8, 160)):
        changed = config.replace(
            document_tokens=document,
            positions_per_document=positions,
            documents_per_step=config.documents_per_step // positions,
        )
        work = work_of(changed, budget=budget)
        rows, tree = (tokens_read(way, work) for way in ("trl", "tree"))
        told = [f"{rows[part] / 1e6:.2f} M, {tree[part] / 1e6:.2f} M" for part in ("read", "trained")]
        share = tree["trained"] / rows["trained"]
        lines.append(f"| {document} | {positions} | {budget} | {told[0]} | {told[1]} | {share:.0%} |")
    return lines


def budget_table() -> list[str]:
    """Return what sampling takes as the budget falls, at the paper's sizes on two nodes with a vLLM server."""
    lines = [
        "| B_t | decode, s | update, s | send, s | decoding's share of the step | "
        "of the GPUs' arithmetic: decoding, update |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    config, shape = settings_of("paper")
    case = cases()[-1]
    for step in (0, config.steps // 2, config.steps):
        budget = budget_of(config, step)
        work = work_of(config, budget=budget)
        times = times_of(case.way, shape, work, case.cluster, case.settings)
        counts, rate = tokens_read(case.way, work), case.cluster.machine.rate * case.cluster.processes
        reached = [
            2 * passes * shape.multiplied * counts[part] / rate / seconds
            for part, passes, seconds in (("sampled", 1, times.decoding), ("trained", 3, times.update))
        ]
        lines.append(
            f"| {budget} | {times.decoding:.3g} | {times.update:.3g} | {times.sending:.3g} | "
            f"{times.decoding / times.seconds:.0%} | {reached[0]:.1%}, {reached[1]:.0%} |"
        )
    return lines


def assumptions(assumed: Assumed = ASSUMED) -> list[str]:
    """Return what the tables assume, a line each."""
    h100 = MACHINES["h100"]
    return [
        f"- H100: {h100.memory / 1e9:.0f} GB, {h100.rate / 1e12:.0f} TFLOP/s dense bfloat16, "
        f"{h100.bandwidth / 1e12:.2f} TB/s, one way {h100.link / 1e9:.0f} GB/s NVLink "
        f"and {h100.network / 1e9:.0f} GB/s network (data sheets)",
        f"- reached of it: {assumed.training:.0%} in updates, {assumed.reading:.0%} in reading, "
        f"{assumed.decoding:.0%} in decoding, {assumed.traffic:.0%} in collectives; nothing overlaps",
        f"- {assumed.starting * 1e3:g} ms to start a layer from Python, a tenth of it with vLLM's graphs",
        f"- documents of {DOCUMENT_TOKENS} tokens where the preset allows more; positions at {assumed.prefix:.0%}",
        f"- thoughts of B_t tokens, the mean over the run; the longest of a step {assumed.longest:g} times that",
        "- with transformers' generate or the tree, sampling runs on the training GPUs, a whole model on each "
        "(gathered for every token where it is sharded); a vLLM server has as many GPUs of its own, a copy on each",
        "- evaluation and saving are left out",
    ]


if __name__ == "__main__":
    for part in (throughput_table(), budget_table(), savings_table(), assumptions()):
        click.echo("\n".join(part) + "\n")
