"""``rmt-mini plan PRESET --gpus N``: a step's memory, time and traffic on GPUs that need not be here."""

from __future__ import annotations

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.scale.clock import times_of, tokens_read
from rmt_mini.scale.cost import MACHINES, WAYS, Cluster, fits, memory_of, peak, work_of
from rmt_mini.scale.launch import scale_settings, setup_for
from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.shape import shape_of


def forecast(config: RMTConfig, gpus: int, machines: int = 1, gpu: str = "h100", way: str = "") -> list[str]:
    """Say what a step takes, as sentences.

    Args:
        config: of the run.
        gpus: on a machine.
        machines: that train.
        gpu: of MACHINES.
        way: of WAYS; empty takes what ``rmt-mini launch`` would use there.

    Returns:
        Lines on memory, time and traffic.

    Raises:
        UserError: for a GPU, a way or a model that is not known.

    Example:
        >>> from rmt_mini.config import preset
        >>> print(forecast(preset("gpu"), gpus=1, way="trl")[0])
        simulated    Qwen/Qwen3-0.6B, 0.60B parameters, 1 x h100, trl
    """
    if gpu not in MACHINES:
        raise UserError(f"gpu is {gpu!r}; use one of {', '.join(MACHINES)}")
    name = "nodes" if machines > 1 else "one-node" if gpus > 1 else "one-gpu"
    settings = scale_settings(config.preset, setup_for(config.preset, name, gpus, machines), {})
    way = way or ("trl" if settings.engine == "transformers" else "trl-vllm")
    if way not in WAYS:
        raise UserError(f"way is {way!r}; use one of {', '.join(WAYS)}")
    if way == "trl-vllm" and settings.engine == "transformers":
        settings = ScaleSettings(engine="vllm-colocate")
    cluster = Cluster(MACHINES[gpu], gpus, machines, sharded=gpus * machines > 1 and way != "tree")
    shape, work = shape_of(config.model), work_of(config)
    parts = memory_of(way, shape, work, cluster, settings)
    times, counts = times_of(way, shape, work, cluster, settings), tokens_read(way, work)
    told = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in parts.items() if size)
    verdict = "" if fits(way, parts, shape, cluster, settings) else f"; DOES NOT FIT {cluster.machine.memory / 1e9:.0f}"
    return [
        f"simulated    {config.model}, {shape.parameters / 1e9:.2f}B parameters, {cluster.processes} x {gpu}, {way}",
        f"rollouts     {work.rollouts:,} a step; tokens read {counts['read']:,.0f}, sampled {counts['sampled']:,.0f}, "
        f"trained on {counts['trained']:,.0f}",
        f"memory       {peak(parts) / 1e9:.1f} GB a GPU at the peak{verdict}: {told}",
        f"time         {times.seconds:.3g} s a step: reading {times.reading:.3g}, decoding {times.decoding:.3g}, "
        f"update {times.update:.3g}, sending {times.sending:.3g}; {times.seconds * config.steps / 3600:.2g} h in all",
        f"traffic      {times.sent / 1e9:.3g} GB sent by each GPU in a step",
        "assumed      as docs/scale.md lists; no GPU has been measured",
    ]
