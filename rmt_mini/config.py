"""Every setting of a run, grouped as the paper is, checked when it is made.

Paper symbols: B_0 ``budget_start``, B_min ``budget_min``, gamma ``budget_decay``, t1 and t2 ``curriculum_start`` and
``curriculum_end`` (shares of T), p_early and p_late ``tier_probs_early`` and ``tier_probs_late``, w ``length_weight``,
lambda ``ntp_weight``, beta ``kl_weight``, G ``group_size``. What the paper does not state (w, p_early, p_late, the tier
thresholds) is ours to choose; PRESETS holds the choices and how they were found stands in the README.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmt_mini.errors import UserError


def _setting(default: Any, help: str) -> Any:
    """Declare a field with the sentence that the command line shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class RMTConfig:
    """All settings of one RMT run; frozen, flat and validated.

    Raises:
        UserError: for an impossible value, naming field, value and remedy.

    Example:
        >>> RMTConfig(steps=0)
        Traceback (most recent call last):
        ...
        rmt_mini.errors.UserError: steps is 0; give a whole number of at least 1
    """

    # What runs, on what, where to
    preset: str = _setting("custom", "name of the preset these settings began with")
    model: str = _setting("smollm2-135m", "bundled model (smollm2-135m, micro), folder of a causal LM, or hub id")
    corpus: str = _setting("champ", "'champ', 'micro', a .txt or .jsonl file, a folder of .txt files, or hf:NAME")
    column: str = _setting("text", "field of a .jsonl line or Hugging Face dataset that holds the text")
    steps: int = _setting(12, "T, RMT steps")
    seed: int = _setting(0, "seed of every random choice")
    out: str = _setting("", "run folder; empty chooses runs/PRESET-seedN")
    device: str = _setting("auto", "auto, cpu or cuda")
    dtype: str = _setting("auto", "auto, float32 or bfloat16")
    # Text
    document_tokens: int = _setting(160, "longest text, tokens; a longer document gives several, one of champ is cut")
    min_document_tokens: int = _setting(48, "shorter documents are left out, tokens")
    evaluation_fraction: float = _setting(0.25, "share of documents held out")
    # Difficulty: entropy and tiers
    difficulty: str = _setting(
        "entropy", "of a token: entropy; or loss, pass-rate, learning-progress, random in tiers of the same sizes"
    )
    entropy_top_k: int = _setting(0, "entropy over the k likeliest tokens only; 0 takes all")
    entropy_model: str = _setting("self", "'self', or a small proxy model with the same tokenizer")
    tier_rule: str = _setting("fixed", "'fixed': thresholds in nats; 'quantile': shares of the training positions")
    tier_thresholds: tuple[float, float] = _setting((1.0, 3.0), "easy up to the first, hard above the second")
    # Dynamic token budget
    use_budget: bool = _setting(True, "state a shrinking budget and reward its use")
    budget_start: int = _setting(16, "B_0, thought tokens; also half the cap where no budget is used")
    budget_min: int = _setting(4, "B_min, thought tokens")
    budget_decay: float = _setting(0.2, "gamma: B_T / B_0, in (0, 1]")
    budget_rule: str = _setting("step", "'step': B_t; 'entropy': B_t times a position's entropy over the step's mean")
    length_weight: float = _setting(0.2, "w, share of the length reward in the reward")
    length_if_correct: bool = _setting(False, "give the length reward to right answers only (departure)")
    # Curriculum
    use_curriculum: bool = _setting(True, "sample tiers by the curriculum; else positions uniformly")
    curriculum_start: float = _setting(0.3, "t1 as a share of T")
    curriculum_end: float = _setting(0.7, "t2 as a share of T")
    tier_probs_early: tuple[float, float, float] = _setting((0.6, 0.3, 0.1), "p_early over easy, medium, hard")
    tier_probs_late: tuple[float, float, float] = _setting((0.2, 0.4, 0.4), "p_late over easy, medium, hard")
    # Reinforcement learning on the chosen positions
    use_rl: bool = _setting(True, "train by GRPO on the chosen positions; else next-token prediction only")
    rl_rule: str = _setting(
        "grpo", "'grpo'; controls: 'correct' learns right rollouts by heart, 'shuffled' deals rewards"
    )
    use_thinking: bool = _setting(True, "think before the answer; else answer at once (control)")
    answer_format: str = _setting("auto", "auto, continuation or chat")
    prefix_match: bool = _setting(False, "continuation format: byte prefix match instead of equal token id")
    group_size: int = _setting(8, "G, rollouts a position")
    positions_per_document: int = _setting(3, "positions drawn from a document in a step")
    documents_per_step: int = _setting(2, "documents a step")
    temperature: float = _setting(1.0, "of sampling in training and evaluation")
    scale_advantages: bool = _setting(True, "divide advantages by the group's standard deviation")
    loss_per: str = _setting("token", "'token': mean over sampled tokens; 'rollout': the paper's sum over a rollout")
    clip_epsilon: float = _setting(0.0, "PPO clipping of the ratio to the sampling policy; 0 is off")
    updates_per_step: int = _setting(1, "optimizer updates on one step's rollouts")
    kl_weight: float = _setting(0.0, "beta, weight of KL to the policy RMT began with; 0 is off")
    # Next-token prediction on the rest
    use_ntp: bool = _setting(True, "add the next-token loss on all positions not chosen")
    ntp_weight: float = _setting(0.1, "lambda")
    # Cold start
    warmup_steps: int = _setting(16, "supervised steps that teach the answer format; 0 is none")
    warmup_positions: int = _setting(24, "positions a cold start step asks, one thought each")
    warmup_learning_rate: float = _setting(1.5e-4, "learning rate of the cold start")
    # Optimizer
    learning_rate: float = _setting(3e-5, "of AdamW in RMT")
    weight_decay: float = _setting(0.0, "of AdamW")
    max_grad_norm: float = _setting(1.0, "gradients are scaled down to this norm")
    on_nan: str = _setting("stop", "'stop' or 'skip' a step whose loss or gradient is not finite")
    branch_tokens: int = _setting(512, "branch tokens in one forward-backward pass: memory, not result")
    # Measuring
    evaluation_positions: int = _setting(240, "held-out positions, spread evenly over the tiers")
    evaluation_documents: int = _setting(40, "most held-out documents they come from")
    evaluation_budget: int = _setting(0, "budget stated in evaluation; 0: B_0 before, B_T after")
    evaluation_thresholds: tuple[float, float] = _setting(
        (0.0, 0.0), "tiers of the held-out positions; 0 0: tier_thresholds"
    )
    preflight_positions: int = _setting(18, "training positions that a run's pre-flight asks, a group each")
    save_every: int = _setting(0, "steps between checkpoints; 0 saves at the end only")
    state_seconds: float = _setting(
        60.0, "least time between two saved states; what is lost at most if a run is killed"
    )
    rollouts_logged: int = _setting(8, "rollouts a step written to rollouts.jsonl")

    def __post_init__(self) -> None:
        _require_kinds(self)
        _require_whole_numbers(self, _POSITIVE_INTEGERS, least=1)
        _require_whole_numbers(self, _NATURAL_NUMBERS, least=0)
        _require_non_negative(self, _NON_NEGATIVE)
        _require_positive(self, _POSITIVE)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            _require(value in allowed, name, value, f"use one of {', '.join(allowed)}")
        for name in ("tier_probs_early", "tier_probs_late"):
            value = getattr(self, name)
            fine = len(value) == 3 and all(_real(p) and p >= 0 for p in value) and abs(sum(value) - 1) < 1e-6
            _require(fine, name, value, "give three numbers of at least 0 that sum to 1: easy, medium, hard")
        for name in ("tier_thresholds", "evaluation_thresholds"):
            low_high = getattr(self, name)
            fine = len(low_high) == 2 and all(_real(t) and t >= 0 for t in low_high) and low_high[0] <= low_high[1]
            _require(fine, name, low_high, "give two numbers of at least 0, the smaller first")
            if self.tier_rule == "quantile":
                _require(low_high[1] <= 1, name, low_high, "with tier_rule 'quantile' give shares from 0 to 1")
        self._check_relations()

    def _check_relations(self) -> None:
        for name, value in _named(self, ("curriculum_start", "curriculum_end", "evaluation_fraction")):
            _require(_real(value), name, value, "give a number from 0 to 1")
        _require(0 < self.budget_decay <= 1, "budget_decay", self.budget_decay, "give a number above 0 and up to 1")
        _require(0 <= self.length_weight <= 1, "length_weight", self.length_weight, "give a number from 0 to 1")
        _require(
            self.budget_min <= self.budget_start,
            "budget_min",
            self.budget_min,
            f"it must not exceed budget_start ({self.budget_start})",
        )
        _require(
            0 <= self.curriculum_start < self.curriculum_end <= 1,
            "curriculum_start",
            self.curriculum_start,
            f"it must lie below curriculum_end ({self.curriculum_end}), both from 0 to 1",
        )
        _require(
            0 < self.evaluation_fraction < 1,
            "evaluation_fraction",
            self.evaluation_fraction,
            "give a share between 0 and 1, both excluded",
        )
        _require(
            self.group_size >= 2 or not self.use_rl,
            "group_size",
            self.group_size,
            "a group needs at least 2 rollouts to compare",
        )
        _require(
            self.use_rl or self.use_ntp, "use_ntp", self.use_ntp, "use_rl is off too, so nothing would train: set one"
        )
        _require(
            self.use_rl or self.ntp_weight > 0,
            "ntp_weight",
            self.ntp_weight,
            "use_rl is off, so nothing would train: give a number above 0",
        )
        _require(
            self.temperature >= LEAST_TEMPERATURE,
            "temperature",
            self.temperature,
            f"give a number of at least {LEAST_TEMPERATURE}",
        )
        _require(
            self.min_document_tokens <= self.document_tokens,
            "min_document_tokens",
            self.min_document_tokens,
            f"it must not exceed document_tokens ({self.document_tokens})",
        )
        _require(
            self.document_tokens >= 2,
            "document_tokens",
            self.document_tokens,
            "a token can be asked for only behind another: give at least 2",
        )
        _require(
            self.updates_per_step == 1 or self.clip_epsilon > 0,
            "updates_per_step",
            self.updates_per_step,
            "more than one update needs clip_epsilon above 0 (0.2 is usual)",
        )

    def replace(self, **changes: Any) -> RMTConfig:
        """Return a copy with some fields changed, checked again."""
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for run.json."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RMTConfig:
        """Make a configuration from what ``to_dict`` gave, also after JSON turned its tuples into lists."""
        if not isinstance(values, Mapping):
            raise UserError(f"the settings are {_shown(values)}; give fields and their values")
        _check_names(values)
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return RMTConfig(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Settings of pre-training from scratch: the shape of the model, and the recipe.

    Raises:
        UserError: for an impossible value.

    Example:
        >>> PretrainConfig(hidden_size=101)
        Traceback (most recent call last):
        ...
        rmt_mini.errors.UserError: hidden_size is 101; give an even multiple of heads (5)
    """

    steps: int = _setting(2700, "optimizer steps")
    seed: int = _setting(0, "seed of weights and text")
    out: str = _setting("", "folder; empty chooses runs/pretrain-micro-seedN")
    device: str = _setting("auto", "auto, cpu or cuda")
    documents_per_step: int = _setting(16, "documents a step")
    learning_rate: float = _setting(2e-3, "peak, of AdamW")
    weight_decay: float = _setting(0.01, "of AdamW")
    rise: int = _setting(40, "steps over which the learning rate rises")
    hidden_size: int = _setting(160, "width of the model")
    intermediate_size: int = _setting(448, "width inside its feed-forward layers")
    layers: int = _setting(3, "layers of the model")
    heads: int = _setting(5, "attention heads")

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "intermediate_size", "layers", "heads")
        _require_kinds(self)
        _require_whole_numbers(self, ("steps", "documents_per_step", "rise", *sizes), least=1)
        _require_whole_numbers(self, ("seed",), least=0)
        _require_positive(self, ("learning_rate",))
        _require_non_negative(self, ("weight_decay",))
        fine = self.hidden_size % (2 * self.heads) == 0  # rotary embeddings turn pairs of dimensions
        _require(fine, "hidden_size", self.hidden_size, f"give an even multiple of heads ({self.heads})")


_POSITIVE_INTEGERS = (
    "steps", "document_tokens", "min_document_tokens", "budget_start", "budget_min", "group_size",
    "positions_per_document", "documents_per_step", "updates_per_step", "branch_tokens", "evaluation_positions",
    "evaluation_documents", "warmup_positions", "preflight_positions",
)  # fmt: skip
_NATURAL_NUMBERS = ("seed", "entropy_top_k", "warmup_steps", "evaluation_budget", "save_every", "rollouts_logged")
_NON_NEGATIVE = ("clip_epsilon", "kl_weight", "ntp_weight", "weight_decay", "length_weight", "state_seconds")
_POSITIVE = ("temperature", "warmup_learning_rate", "learning_rate", "max_grad_norm", "budget_decay")
_CHOICES = {
    "difficulty": ("entropy", "loss", "pass-rate", "learning-progress", "random"),
    "budget_rule": ("step", "entropy"),
    "tier_rule": ("fixed", "quantile"),
    "on_nan": ("stop", "skip"),
    "rl_rule": ("grpo", "correct", "shuffled"),
    "answer_format": ("auto", "continuation", "chat"),
    "loss_per": ("token", "rollout"),
    "dtype": ("auto", "float32", "bfloat16", "float64"),
}

LEAST_TEMPERATURE = 1e-3  # below it logits divided by the temperature may overflow

_LARGEST = 2**63 - 1  # that a tensor holds, and a generator takes as its seed
_LONGEST_SHOWN = 120  # characters of a value
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # neither a path nor run.json holds these


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: object) -> bool:
    # not math.isfinite, which gives up at whole numbers that no float holds
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _shown(value: object) -> str:
    """Show any value in one line."""
    try:
        told = repr(value)
    except Exception:  # whatever a foreign class raises; and Python writes out no number of over 4,300 digits
        told = f"a {type(value).__name__} that cannot be shown"
    if len(told.splitlines()) > 1:  # an array, say
        told = " ".join(told.split())
    return told if len(told) <= _LONGEST_SHOWN else f"{told[:_LONGEST_SHOWN]}..."


def _require(fine: bool, name: str, value: object, remedy: str) -> None:
    if not fine:
        raise UserError(f"{name} is {_shown(value)}; {remedy}")


def _require_kinds(settings: Any) -> None:
    """Refuse a value of another kind than the field's default; numbers are looked at one by one elsewhere."""
    for one in dataclasses.fields(settings):
        value = getattr(settings, one.name)
        if isinstance(one.default, bool):
            _require(isinstance(value, bool), one.name, value, "give True or False")
        elif isinstance(one.default, str):
            _require(isinstance(value, str), one.name, value, "give text")
            _require(not _UNWRITABLE.search(value), one.name, value, "give text without NUL and half characters")
        elif isinstance(one.default, tuple):
            _require(isinstance(value, tuple), one.name, value, f"give {len(one.default)} numbers as a tuple")


def _require_whole_numbers(settings: object, names: Iterable[str], least: int) -> None:
    for name, value in _named(settings, names):
        _require(_whole(value) and value >= least, name, value, f"give a whole number of at least {least}")
        _require(value <= _LARGEST, name, value, f"give a whole number of at most {_LARGEST}")


def _require_non_negative(settings: object, names: Iterable[str]) -> None:
    for name, value in _named(settings, names):
        _require(_real(value) and value >= 0, name, value, "give a number of at least 0")


def _require_positive(settings: object, names: Iterable[str]) -> None:
    for name, value in _named(settings, names):
        _require(_real(value) and value > 0, name, value, "give a number above 0")


def _named(settings: object, names: Iterable[str]) -> list[tuple[str, Any]]:
    return [(name, getattr(settings, name)) for name in names]


def _check_names(values: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(RMTConfig)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(_shown(name).strip("'"), known)
            remedy = f"did you mean {' or '.join(near)}?" if near else "rmt-mini run --help lists all"
            raise UserError(f"field {_shown(name)} is unknown; {remedy}")


# Fields of a run that post-training sets itself or has no use for: a question has one position and no text around it.
NOT_IN_POSTTRAINING = (
    "model", "corpus", "column", "entropy_model", "entropy_top_k", "budget_rule",
    "document_tokens", "min_document_tokens", "difficulty", "tier_rule", "tier_thresholds",
    "use_curriculum", "curriculum_start", "curriculum_end", "tier_probs_early", "tier_probs_late", "use_rl",
    "prefix_match", "positions_per_document", "use_ntp", "ntp_weight", "warmup_steps", "warmup_positions",
    "warmup_learning_rate", "evaluation_positions", "evaluation_documents", "evaluation_budget",
    "evaluation_thresholds", "preflight_positions", "state_seconds",
)  # fmt: skip


PRESETS: dict[str, dict[str, Any]] = {
    "micro": {
        "model": "micro",
        "corpus": "micro",
        "dtype": "float32",  # at this size nothing is gained by bfloat16, and runs repeat on more machines
        "steps": 110,
        "min_document_tokens": 8,
        "tier_thresholds": (0.5, 1.9),
        "budget_start": 20,
        "budget_decay": 0.4,
        "length_weight": 0.3,
        "length_if_correct": True,
        "scale_advantages": False,
        "tier_probs_early": (0.4, 0.3, 0.3),
        "tier_probs_late": (0.1, 0.4, 0.5),
        "positions_per_document": 2,
        "documents_per_step": 10,
        "ntp_weight": 0.5,
        "warmup_steps": 0,
        "learning_rate": 2.5e-4,
        "branch_tokens": 4096,
        "evaluation_positions": 900,
        "evaluation_documents": 300,
        "preflight_positions": 90,
    },
    "laptop": {},
    "gpu": {
        "model": "Qwen/Qwen3-0.6B",
        "answer_format": "chat",
        "steps": 400,
        "document_tokens": 1024,
        "budget_start": 256,
        "budget_min": 16,
        "positions_per_document": 8,
        "documents_per_step": 8,
        "learning_rate": 1e-6,
        "warmup_steps": 0,
        "branch_tokens": 16384,
        "evaluation_positions": 1200,
        "save_every": 50,
    },
    "paper": {
        "model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
        "corpus": "hf:KbsdJames/Omni-MATH@test",  # the data set has no other split; the paper made its own
        "column": "problem+solution",
        "answer_format": "chat",
        "steps": 316,  # 4,051 documents, batch 128, 10 epochs
        "document_tokens": 4096,
        "budget_start": 800,
        "budget_min": 1,
        "positions_per_document": 1,
        "documents_per_step": 128,
        "learning_rate": 1e-6,
        "loss_per": "rollout",
        "warmup_steps": 0,
        "branch_tokens": 16384,
        "evaluation_positions": 1200,
        "save_every": 20,
    },
}


def preset(name: str, **changes: Any) -> RMTConfig:
    """Return a preset, with some fields changed.

    Args:
        name: one of PRESETS.
        changes: field values that replace the preset's.

    Raises:
        UserError: for an unknown preset or field, or an impossible value.

    Example:
        >>> preset("laptop", steps=3).steps
        3
    """
    if name not in PRESETS:
        raise UserError(f"preset {name!r} is unknown; use one of {', '.join(PRESETS)}")
    _check_names(changes)
    own = {key: value for key, value in PRESETS[name].items() if key != "column" or "corpus" not in changes}
    return RMTConfig(**{"preset": name, **own, **changes})
