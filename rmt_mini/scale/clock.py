"""Time and traffic of a step: reading, decoding, updating, sending. See ``cost`` for the ways and what is assumed."""

from __future__ import annotations

from dataclasses import dataclass

from rmt_mini.scale.cost import ASSUMED, Assumed, Cluster, Work
from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.shape import Shape


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a step.

    Attributes:
        reading: documents and prompts, before the first sampled token.
        decoding: thoughts and answers.
        update: forward and backward.
        sending: gradients, sharded weights, and weights to vLLM.
        sent: bytes that each process sends.
        gathering: seconds of ``sending`` that sampling takes: sharded weights brought together for every token.
    """

    reading: float
    decoding: float
    update: float
    sending: float
    sent: float
    gathering: float = 0.0

    @property
    def seconds(self) -> float:
        """The whole step; sending is taken to overlap with nothing."""
        return self.reading + self.decoding + self.update + self.sending

    @property
    def rollout_share(self) -> float:
        """Share of reading and decoding, and of what has to be sent for them."""
        return (self.reading + self.decoding + self.gathering) / self.seconds


def tokens_read(way: str, work: Work) -> dict[str, float]:
    """Count the tokens that a step reads, samples and trains on, over all processes.

    Args:
        way: "tree", "trl" or "trl-vllm".
        work: of the step.

    Returns:
        "read" before sampling and between its two parts, "sampled", and "trained", documents for entropies and
        next-token loss among them.

    Example:
        >>> work = Work(16, 2, 200, 100, prefix=50.0, thought=10, longest=20, frame=5)
        >>> [tokens_read(way, work)["read"] for way in ("tree", "trl", "trl-vllm")]
        [280.0, 2040.0, 460.0]
    """
    branches = work.rollouts * work.branch
    if way == "tree":
        read = float(work.trunks + work.rollouts * work.frame)
        trained = work.trunks + branches
    else:
        rows = work.rollouts * (work.prefix + work.branch)
        # transformers reads every row twice, before the thought and before the answer; vLLM a position once
        again = work.rollouts * (2 * work.prefix + work.branch) if way == "trl" else work.positions * work.prefix
        read = work.trunks + again + (work.rollouts * 2 * work.frame if way == "trl-vllm" else 0)
        trained = rows + work.trunks
    return {"read": read, "sampled": float(work.rollouts * work.thought), "trained": float(trained)}


def times_of(
    way: str, shape: Shape, work: Work, cluster: Cluster, settings: ScaleSettings, assumed: Assumed = ASSUMED
) -> Times:
    """Simulate a step.

    Args:
        way: "tree", "trl" or "trl-vllm".
        shape: of the model.
        work: of the step, over all processes.
        cluster: that does it.
        settings: micro_batch, checkpointing, engine.
        assumed: shares of the machine's rates that are reached.

    Returns:
        Its times.
    """
    machine, processes = cluster.machine, cluster.processes
    counts = tokens_read(way, work)
    forward = 2 * shape.multiplied + shape.attention_operations(work.prefix)
    reading = counts["read"] * forward / (machine.rate * assumed.reading * processes)
    weights = shape.multiplied * machine.width

    # each token step reads the weights once, and the keys and values of every row or trunk that is still growing
    share = work.rollouts / processes
    own = share * work.thought * (work.thought / 2 + work.frame)
    seen = work.trunks / processes * work.longest if way == "tree" else share * work.thought * work.prefix
    kept = (own + seen) * shape.kv_bytes(machine.width)
    waiting = (work.longest * weights / settings.tensor_parallel + kept) / machine.bandwidth
    computing = counts["sampled"] / processes * forward / machine.rate
    starting = shape.layers * assumed.starting
    decoding = max(waiting, computing) / assumed.decoding
    decoding += work.longest * starting * (0.1 if way == "trl-vllm" else 1)

    factor = 4 if settings.checkpointing and way != "tree" else 3
    scored = work.trunks + work.rollouts * work.branch  # logits are taken where there is a loss
    trained = counts["trained"] * (forward - 2 * shape.head) + scored * 2 * shape.head
    update = factor * trained / (machine.rate * assumed.training * processes)
    update += max(1.0, work.rollouts / (settings.micro_batch * processes)) * factor * starting
    sent, wire = traffic(way, shape, work, cluster, settings), cluster.wire * assumed.traffic
    gathered = sampling_gathers(way, work, cluster) * weights_sent(shape, cluster)
    return Times(reading, decoding, update, sent / wire, sent, gathered / wire)


def sampling_gathers(way: str, work: Work, cluster: Cluster) -> float:
    """Return how often sharded weights are gathered to sample: for every token, by transformers' generate."""
    return work.longest + 1 if way == "trl" and cluster.sharded and cluster.processes > 1 else 0.0


def weights_sent(shape: Shape, cluster: Cluster) -> float:
    """Return the bytes that a process sends when sharded weights are gathered once."""
    return (cluster.processes - 1) / cluster.processes * shape.parameters * cluster.machine.width


def traffic(way: str, shape: Shape, work: Work, cluster: Cluster, settings: ScaleSettings) -> float:
    """Return the bytes that each process sends in a step.

    A copy on each: one all-reduce of gradients in float32, 2 (P - 1) / P of their size. Sharded: weights gathered
    forward and backward and gradients scattered in each micro-step, weights gathered once for each document of a
    process to measure entropies, and, with transformers' generate, once more for every token. vLLM gets them once.

    Example:
        >>> from rmt_mini.scale.cost import MACHINES
        >>> from rmt_mini.scale.shape import KNOWN
        >>> work = Work(64, 8, 400, 200, prefix=100, thought=10, longest=20, frame=5)
        >>> one, two = (Cluster(MACHINES["h100"], gpus) for gpus in (1, 2))
        >>> [traffic("trl", KNOWN["smollm2-135m"], work, many, ScaleSettings()) / 1e6 for many in (one, two)]
        [0.0, 538.060032]
    """
    processes = cluster.processes
    if processes == 1:
        return 0.0
    if not cluster.sharded:
        sent = 2 * (processes - 1) / processes * 4 * shape.parameters
    else:
        micro_steps = work.rollouts / (settings.micro_batch * processes)
        documents = work.trunks / work.document / processes
        gathers = 3 * (micro_steps + min(micro_steps, documents)) + documents + sampling_gathers(way, work, cluster)
        sent = gathers * weights_sent(shape, cluster)
    return sent + (shape.parameters * cluster.machine.width if way == "trl-vllm" else 0.0)
