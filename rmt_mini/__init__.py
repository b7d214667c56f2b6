"""Reinforcement Mid-Training (RMT, arXiv 2509.24375), taught and run on small models.

RMT lies between pre-training and post-training: a language model learns by reinforcement to think before hard tokens
of plain unlabelled text, within a budget that shrinks, while it learns next tokens elsewhere.

The wings, in reading order; each imports only those before it:

- ``config``, ``records``, ``arms``: every setting of a run; the records that wings pass on; the arms of a comparison.
- ``method``: the paper, nothing else. Pure functions on tensors and numbers.
- ``engine``: what touches a model. The document tree, sampling, loading.
- ``worlds``: text and questions.
- ``stages``: pre-training, cold start, mid-training, post-training, and evaluation.
- ``report``: results as tables, sentences and figures.
- ``runs``: whole runs, and comparisons of several.
- ``bench``: how fast a step is.
- ``scale``: the same method on more than one machine, by TRL and accelerate.
- ``teaching``, ``cli``: the classroom; the command line.

The names below load on first use, so that importing the package is quick:

    >>> import rmt_mini
    >>> rmt_mini.budget_at_step(step=0, total_steps=100, start=64, minimum=8, decay=0.5)
    64
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmt_mini.config import RMTConfig as RMTConfig
    from rmt_mini.engine.model import load_policy as load_policy
    from rmt_mini.method.budget import budget_at_step as budget_at_step
    from rmt_mini.method.budget import length_reward as length_reward
    from rmt_mini.method.curriculum import TierSampler as TierSampler
    from rmt_mini.method.curriculum import tier_probabilities as tier_probabilities
    from rmt_mini.method.entropy import assign_tiers as assign_tiers
    from rmt_mini.method.entropy import token_entropy as token_entropy
    from rmt_mini.method.grpo import group_advantages as group_advantages
    from rmt_mini.method.grpo import rl_loss as rl_loss
    from rmt_mini.method.objective import ntp_loss as ntp_loss
    from rmt_mini.method.objective import rmt_loss as rmt_loss
    from rmt_mini.method.rewards import match_reward as match_reward
    from rmt_mini.method.rewards import prefix_match_reward as prefix_match_reward
    from rmt_mini.method.rewards import total_reward as total_reward
    from rmt_mini.records import Document as Document
    from rmt_mini.runs.run import RunResult as RunResult
    from rmt_mini.runs.run import run as run
    from rmt_mini.stages.evaluate import evaluate as evaluate
    from rmt_mini.stages.midtrain import RMTTrainer as RMTTrainer

__version__ = "0.1.0"

# Each is read once, when a library is loaded, and the user's own value stands. huggingface_hub: no telemetry. torch:
# threads that wait give up their core, so that a second program does not slow a step several times over; with GNU's
# OpenMP they look for work some 20 microseconds first, since to wake one for every small operation doubles a step.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ["OMP_WAIT_POLICY"] = "passive"

_NAMES = {  # module: its public names
    "config": ("RMTConfig",),
    "engine.model": ("load_policy",),
    "method.budget": ("budget_at_step", "length_reward"),
    "method.curriculum": ("TierSampler", "tier_probabilities"),
    "method.entropy": ("assign_tiers", "token_entropy"),
    "method.grpo": ("group_advantages", "rl_loss"),
    "method.objective": ("ntp_loss", "rmt_loss"),
    "method.rewards": ("match_reward", "prefix_match_reward", "total_reward"),
    "records": ("Document",),
    "runs.run": ("RunResult", "run"),
    "stages.evaluate": ("evaluate",),
    "stages.midtrain": ("RMTTrainer",),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
