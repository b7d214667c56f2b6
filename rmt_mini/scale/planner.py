"""What a run takes, before it runs: time, memory and traffic, here or on GPUs elsewhere.

    seconds = tokens x 2 x parameters / (rate x share reached)            forward; 3 times that with backward
            + token steps x (weight bytes / bandwidth + layers x start)   sampling: one more token of every rollout
    memory  = weights, gradients, optimizer + the larger of activations and key/value cache

The rate that is measured here includes both parts of sampling. Left out are attention's own products, saving and
overlap. Within a factor of two of every step measured so far, on one CPU and one H200 (docs/scale.md).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rmt_mini.config import RMTConfig, data
from rmt_mini.engine.memory import Size, activation_bytes, measure
from rmt_mini.engine.model import Policy
from rmt_mini.engine.text import format_for
from rmt_mini.errors import UserError, refusing
from rmt_mini.method import budget_of, thought_cap
from rmt_mini.report.markdown import macro
from rmt_mini.runs.capacity import RUNTIME_BYTES, memory_needed, product_rate
from rmt_mini.scale.launch import ScaleSettings, setup_for

WAYS = ("tree", "trl", "trl-vllm")  # the document tree, on one GPU; TRL with transformers' generate, or with vLLM
FRAME_TOKENS = 20  # opening, closing tag, cue and answer of the continuation format
CHAT_FRAME_TOKENS = 80  # of the chat format
LONGEST = 2.0  # the longest thought of a step, in budgets
PREFIX = 0.5  # where a position is, as a share of its document
REACHED = 0.7  # share of a connection's rate
CHECKPOINTED = 0.12  # share of the activations that is kept where they are computed again


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor and its connections; rates a second."""

    name: str
    rate: float  # dense matrix products, operations
    memory: float = math.inf  # bytes
    bandwidth: float = math.inf  # of memory, bytes
    link: float = math.inf  # to others in the node, bytes one way
    network: float = math.inf  # to other nodes
    start: float = 0.0  # seconds to start a layer from Python; a tenth with vLLM's graphs
    training: float = 0.4  # share of the rate that an update reaches
    sampling: float = 0.5  # share of the rate that reading and sampling reach


DATA = data("scale/machines.yaml")
MACHINES = {name: Machine(name, **numbers) for name, numbers in DATA["machines"].items()}
KNOWN = {name: Size(*numbers) for name, numbers in DATA["models"].items()}


def size_of(name: str) -> Size:
    """Return the size of a known model, or of one in a folder by its config.json; no weights are loaded."""
    if name in KNOWN:
        return KNOWN[name]
    with refusing(f"the size of model {name!r} is not known", f"give a folder, or one of {[*KNOWN]}"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            made: Any = AutoModelForCausalLM
            return measure(made.from_config(config))


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate of one run."""

    what: str
    rollouts: int  # of the run
    tokens: tuple[float, float]  # to RL and to next-token prediction
    step: dict[str, float]  # seconds of a step: sampling, update, sending
    seconds: tuple[float, float, float]  # of the cold start, of all steps, of evaluation
    memory: float  # bytes of each processor at the peak
    room: float  # bytes that it has
    sent: float  # bytes that it sends in a step

    def lines(self) -> list[str]:
        """Return the plan as sentences."""
        return macro("tables.md.j2", "plan", self).split("\n")


def estimate(
    config: RMTConfig, size: Size, machine: Machine, way: str, settings: ScaleSettings, gpus: int = 1, machines: int = 1
) -> Plan:
    """Estimate a run by the formulas above, in bfloat16; ``settings`` count for the ways of TRL."""
    processes, tree = gpus * machines, way == "tree"
    rollouts = config.positions_per_document * config.documents_per_step * config.group_size * config.use_rl
    trunks = config.documents_per_step * config.document_tokens
    frame = CHAT_FRAME_TOKENS if config.answer_format == "chat" else FRAME_TOKENS
    cap = thought_cap(config.budget_start) * config.use_thinking
    budget = sum(budget_of(config, step) for step in range(config.steps)) / config.steps if config.use_budget else cap
    thought, longest = min(budget, cap), min(LONGEST * budget, cap)
    prefix, branch = PREFIX * config.document_tokens, thought + frame
    row, weights = prefix + longest + frame, 2 * size.parameters
    micro = rollouts / (settings.micro_batch * processes)  # passes of TRL's update

    # rows are read twice, before their thoughts and before their answers; vLLM reads a position's prefix once
    read = {"tree": frame, "trl": 2 * prefix + branch, "trl-vllm": prefix / config.group_size + 2 * frame}[way]
    operations = 2 * size.parameters / machine.rate / processes  # seconds a token, forward, at the full rate
    start, graphs = size.layers * machine.start, 0.1 if way == "trl-vllm" else 1
    sampling = (trunks + rollouts * (read + thought)) * operations / machine.sampling
    sampling += longest * (weights / settings.tensor_parallel / machine.bandwidth + start * graphs)

    trained = trunks + rollouts * (branch if tree else prefix + branch)
    passes = math.ceil(rollouts * branch / config.branch_tokens) + 1 if tree else micro
    update = config.updates_per_step * (trained * operations / machine.training + passes * start)
    update *= 4 if settings.checkpointing and not tree else 3

    sent = 0.0
    if processes > 1:  # weights gathered forward and backward and gradients scattered, in every pass
        documents = config.documents_per_step / processes
        gathers = 3 * (micro + min(micro, documents)) + documents + (longest + 1) * (way == "trl")
        sent = gathers * weights * (processes - 1) / processes + weights * (way == "trl-vllm")
    wire = REACHED * (machine.link if machines == 1 else machine.network)

    if tree:
        at_once, cached = min(config.branch_tokens, rollouts * branch) + trunks, trunks + rollouts * branch
    else:
        at_once, cached = settings.micro_batch * row + config.document_tokens, rollouts * row * (way == "trl")
        at_once *= CHECKPOINTED if settings.checkpointing else 1
    memory = (20 if tree else 16) * size.parameters / processes + RUNTIME_BYTES
    memory += max(activation_bytes(at_once, size, 2), 2 * cached * size.cached / processes)
    if settings.engine == "vllm-colocate":
        memory += max(settings.gpu_memory * machine.memory, weights / settings.tensor_parallel)

    # what the tree's runs do before and after
    warm = config.warmup_positions * ((config.budget_start + config.budget_min) // 2 + frame) + trunks
    before = tree * config.warmup_steps * warm * operations * (1 / machine.sampling + 3 / machine.training)
    thoughts = config.evaluation_thoughts if config.use_thinking else 1
    measured = (3 if config.warmup_steps else 2) * config.evaluation_positions * thoughts
    if config.curve_every:
        measured += config.checked_positions * (config.steps // config.curve_every)
    asked = measured * (config.budget_start + frame)
    evaluation = tree * asked * operations / machine.sampling
    step = {"sampling": sampling, "update": update, "sending": sent / wire}
    what = f"{config.model}, {size.parameters / 1e9:.2f}B parameters, {processes} x {machine.name}, {way}"
    totals = config.steps * rollouts, (config.steps * rollouts * branch, config.steps * trunks)
    seconds = before, config.steps * sum(step.values()), evaluation
    return Plan(what, *totals, step, seconds, memory, machine.memory, sent)


def plan_run(config: RMTConfig, policy: Policy) -> Plan:
    """Estimate a run of ``config`` with ``policy`` on this machine, whose rate is measured for some seconds."""
    format_for(policy, config)  # raises where they do not fit each other
    few, rate = (product_rate(policy.device, policy.dtype, rows) for rows in (64, 1024))
    here = Machine(f"this machine at {rate / 1e9:.0f} GFLOP/s", rate, training=0.6, sampling=0.5 * few / rate)
    plan = estimate(config, measure(policy.model), here, "tree", ScaleSettings())
    return replace(plan, memory=memory_needed(config, policy))


def forecast(config: RMTConfig, gpus: int, machines: int = 1, gpu: str = "h100", way: str = "") -> list[str]:
    """Estimate a run on GPUs that need not be here, as sentences; an empty ``way`` is that of ``rmt-mini launch``."""
    name = "nodes" if machines > 1 else "one-node" if gpus > 1 else "one-gpu"
    settings = setup_for(config.preset, name, gpus, machines).scale
    way = way or ("trl" if settings.engine == "transformers" else "trl-vllm")
    for field, value, known in (("gpu", gpu, [*MACHINES]), ("way", way, WAYS[gpus * machines > 1 :])):
        if value not in known:
            raise UserError(f"{field} is {value!r}; use one of {', '.join(known)}")
    if (way == "trl-vllm") != (settings.engine != "transformers"):
        settings = ScaleSettings(engine="vllm-colocate" if way == "trl-vllm" else "transformers")
    return estimate(config, size_of(config.model), MACHINES[gpu], way, settings, gpus, machines).lines()
