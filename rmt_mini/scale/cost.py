"""Memory, time and traffic of a step before it runs, for one to many GPUs.

Three ways of doing the same step:

    tree       the document tree: a prefix once for all its rollouts, whole model on each process
    trl        TRL with transformers' generate: each rollout its own row, padded to the longest
    trl-vllm   TRL with vLLM: a prefix read once a position for sampling; rows again in the update

Operations: 2 for each parameter and token forward, 6 forward and backward, 8 with activations made again, and
attention's products. Decoding also waits for memory: each token step reads all weights once, and each row its keys and
values. ASSUMED holds what is not known beforehand, and every table is printed with it. A simulation, to choose settings
by: no GPU has been measured with it. tests/scale/test_cost.py holds it to what was measured on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rmt_mini.config import RMTConfig
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.schedule import budget_of
from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.shape import Shape

WAYS = ("tree", "trl", "trl-vllm")
FRAME_TOKENS = {"continuation": 20, "chat": 80}  # opening, closing tag, cue and answer
ACTIVATION_NUMBERS = 34  # kept for backward by token, layer and hidden unit
RUNTIME_BYTES = 0.7e9  # Python, PyTorch, transformers, tokenizer, text; on a GPU its context and buffers
TILE_TOKENS, TILE_WIDTH = 4096, 32768  # of TRL's logits


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor and its connections.

    Attributes:
        name: as it is asked for.
        memory: bytes.
        rate: dense matrix products, operations a second, in the dtype that trains.
        bandwidth: of memory, bytes a second.
        link: to others in the node, bytes a second one way.
        network: to other nodes, bytes a second one way.
        width: bytes a number of weights and activations.
    """

    name: str
    memory: float
    rate: float
    bandwidth: float
    link: float
    network: float
    width: int = 2


# From the makers' data sheets: dense bfloat16, NVLink one way, one 400 Gb/s (200 for a100) network card a GPU.
MACHINES = {
    "a100": Machine("a100", 80e9, 312e12, 2.0e12, 300e9, 25e9),
    "h100": Machine("h100", 80e9, 989e12, 3.35e12, 450e9, 50e9),
    "h200": Machine("h200", 141e9, 989e12, 4.8e12, 450e9, 50e9),
}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a plan cannot know.

    Attributes:
        training: share of ``rate`` that an update reaches.
        reading: share of ``rate`` that reading prompts reaches.
        decoding: share of ``bandwidth``, or of ``rate`` where that is the limit, that decoding reaches.
        traffic: share of ``link`` and ``network`` that collectives reach.
        starting: seconds that Python takes to start a layer on a GPU, forward; a tenth of it with vLLM's graphs.
        longest: the longest thought of a step over the budget; the cap is 2.
        prefix: a position's mean place, as a share of the document.
    """

    training: float = 0.4
    reading: float = 0.5
    decoding: float = 0.5
    traffic: float = 0.7
    starting: float = 3e-4
    longest: float = 2.0
    prefix: float = 0.5


ASSUMED = Assumed()


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do, over all processes.

    Attributes:
        rollouts: K * N * G.
        positions: K * N.
        trunks: tokens of its documents.
        document: tokens of one.
        prefix: tokens before a position, mean.
        thought: tokens, mean over rollouts.
        longest: tokens of the longest thought.
        frame: tokens of opening, closing, cue and answer.
        chunk: branch tokens that the tree trains on at once.
    """

    rollouts: int
    positions: int
    trunks: int
    document: int
    prefix: float
    thought: float
    longest: float
    frame: int
    chunk: int = 512

    @property
    def branch(self) -> float:
        """Tokens of a mean branch."""
        return self.thought + self.frame


def work_of(config: RMTConfig, assumed: Assumed = ASSUMED, budget: float = 0.0) -> Work:
    """Return the work of a run's mean step, or of one under a given budget.

    Args:
        config: of the run; documents are taken to be as long as they may.
        assumed: where positions lie, and how long the longest thought is.
        budget: B, tokens; 0 takes the mean of B_t over the run.

    Returns:
        The work.

    Example:
        >>> from rmt_mini.config import preset
        >>> work = work_of(preset("paper", document_tokens=512))
        >>> work.rollouts, work.prefix, round(work.thought)
        (1024, 256.0, 398)
    """
    mean = budget or sum(budget_of(config, step) for step in range(config.steps)) / config.steps
    positions = config.positions_per_document * config.documents_per_step
    frame = FRAME_TOKENS["chat" if config.answer_format == "chat" else "continuation"]
    thought: float = mean
    longest: float = min(assumed.longest * mean, thought_cap(config.budget_start))
    if not config.use_budget:
        thought = longest = thought_cap(config.budget_start)
    return Work(
        positions * config.group_size,
        positions,
        config.documents_per_step * config.document_tokens,
        config.document_tokens,
        assumed.prefix * config.document_tokens,
        thought if config.use_thinking else 0,
        longest if config.use_thinking else 0,
        frame,
        config.branch_tokens,
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines that train together.

    Attributes:
        machine: each of them.
        gpus: in a node.
        nodes: how many.
        sharded: weights, gradients and optimizer over all (ZeRO-3); else a copy on each.
    """

    machine: Machine
    gpus: int = 1
    nodes: int = 1
    sharded: bool = False

    @property
    def processes(self) -> int:
        """GPUs in all."""
        return self.gpus * self.nodes

    @property
    def wire(self) -> float:
        """Bytes a second one way at the narrowest place of a collective over all."""
        return self.machine.link if self.nodes == 1 else self.machine.network


def memory_of(way: str, shape: Shape, work: Work, cluster: Cluster, settings: ScaleSettings) -> dict[str, float]:
    """Estimate the memory of each process at its peak, bytes, by what takes it.

    Args:
        way: of WAYS.
        shape: of the model.
        work: of a step.
        cluster: that does it.
        settings: micro_batch, checkpointing, lora_rank, gpu_memory.

    Returns:
        Parts; where sampling and training take turns, keys and values and activations stand both, and ``peak`` knows.

    Example:
        >>> from rmt_mini.scale.shape import KNOWN
        >>> from rmt_mini.config import preset
        >>> node = Cluster(MACHINES["h100"], 8, 2, sharded=True)
        >>> parts = memory_of("trl-vllm", KNOWN["Qwen/Qwen3-14B"], work_of(preset("paper")), node, ScaleSettings())
        >>> [f"{name} {parts[name] / 1e9:.1f}" for name in ("weights", "gradients", "optimizer")]
        ['weights 5.0', 'gradients 1.8', 'optimizer 11.1']
    """
    width, shards = cluster.machine.width, cluster.processes if cluster.sharded else 1
    trained = lora_parameters(shape, settings.lora_rank) if settings.lora_rank else shape.parameters
    # float32 masters where weights are narrower and all are trained: in the optimizer when sharded, as weights else
    masters = 4 * trained if width < 4 and cluster.sharded else 0
    held = width if cluster.sharded or settings.lora_rank or width == 4 else 4 + width
    row = work.prefix + work.longest + work.frame
    rows = work.rollouts / cluster.processes
    trunk_rows = work.trunks / cluster.processes
    if way == "tree":
        backward, kept = min(work.chunk, rows * work.branch) + trunk_rows, 1.0
        cached = trunk_rows + rows * work.branch
        tile = 128.0 * shape.vocabulary
    else:
        documents = work.trunks / max(1.0, rows / settings.micro_batch * cluster.processes)
        backward, kept = settings.micro_batch * row + max(documents, work.document), 1.0
        cached = rows * row if way == "trl" else 0.0
        tile = min(backward, TILE_TOKENS) * min(shape.vocabulary, TILE_WIDTH)
    if settings.checkpointing and way != "tree":
        kept = (2 + ACTIVATION_NUMBERS * 2 / shape.layers) / ACTIVATION_NUMBERS  # inputs of layers, one layer whole
    parts = {
        "weights": held * shape.parameters / shards + (2 * shape.vocabulary * shape.hidden * width) * (shards > 1),
        "gradients": (width if cluster.sharded else 4) * trained / shards,
        "optimizer": (8 * trained + masters) / shards,
        "activations": backward * shape.layers * shape.hidden * ACTIVATION_NUMBERS * width * kept,
        "logits": 4 * tile + 4 * shape.vocabulary * shape.hidden + work.document * shape.vocabulary * width,
        "key/value cache": cached * shape.kv_bytes(width),
        "vLLM": settings.gpu_memory * cluster.machine.memory if settings.engine == "vllm-colocate" else 0.0,
        "runtime": RUNTIME_BYTES,
    }
    return parts


def peak(parts: Mapping[str, float]) -> float:
    """Return the bytes at the peak: sampling and training take turns, so the larger of their parts counts."""
    turns = parts["key/value cache"], parts["activations"] + parts["logits"]
    others = sum(value for name, value in parts.items() if name not in ("key/value cache", "activations", "logits"))
    return others + max(turns)


def fits(way: str, parts: Mapping[str, float], shape: Shape, cluster: Cluster, settings: ScaleSettings) -> bool:
    """Tell whether a step's memory is there, and whether a colocated vLLM's part of it holds the weights."""
    apart = way != "trl-vllm" or settings.engine != "vllm-colocate"
    weights = shape.parameters * cluster.machine.width / settings.tensor_parallel
    return peak(parts) <= cluster.machine.memory and (apart or weights < 0.9 * parts["vLLM"])


def lora_parameters(shape: Shape, rank: int) -> int:
    """Return the parameters of LoRA adapters on every linear layer but the output embedding."""
    queries, keys, d, wide = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.hidden, 0
    for inside, outside in ((d, queries), (d, keys), (d, keys), (queries, d), *[(d, shape.intermediate)] * 2):
        wide += inside + outside
    return rank * shape.layers * (wide + shape.intermediate + d)


def measured_machine(rate: float, bandwidth: float, memory: float) -> Machine:
    """Describe a CPU by what was measured on it; one process, so nothing is sent."""
    return replace(MACHINES["h100"], name="cpu", rate=rate, bandwidth=bandwidth, memory=memory, width=4)
