"""Every setting of a run, grouped as in the paper: bounds, choices, help and group are beside each field.

Paper symbols: B_0 ``budget_start``, B_min ``budget_min``, gamma ``budget_decay``, t1 and t2 ``curriculum_start`` and
``curriculum_end`` (shares of T), p_early and p_late ``tier_probs_early`` and ``tier_probs_late``, w ``length_weight``,
lambda ``ntp_weight``, beta ``kl_weight``, G ``group_size``. The paper does not state w, p_early, p_late and the tier
thresholds; ours are in ``presets/*.yaml``, and ``data/*/TRIED.md`` says how they were found.
"""

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from rmt_mini.errors import UserError

LEAST_TEMPERATURE = 1e-3  # below it logits divided by the temperature may overflow
_LARGEST = 2**63 - 1  # that a tensor holds, and a generator takes as its seed

# Kinds of fields. A title completes the sentence "give ...", which the error message for a wrong value ends with.


def _whole(least: int) -> Any:
    return Field(ge=least, le=_LARGEST, title=f"a whole number of at least {least}")


def _real(title: str, **bounds: Any) -> Any:
    return Field(title=title, allow_inf_nan=False, **bounds)


Natural = Annotated[int, _whole(0)]
Count = Annotated[int, _whole(1)]
Depth = Annotated[int, Field(ge=0, le=4, title="a whole number from 0 to 4")]
Sayings = Annotated[float, _real("a number from 0 to 20", ge=0, le=20)]
Several = Annotated[int, _whole(2)]
Amount = Annotated[float, _real("a number of at least 0", ge=0)]
Positive = Annotated[float, _real("a number above 0", gt=0)]
Share = Annotated[float, _real("a number from 0 to 1", ge=0, le=1)]
PositiveShare = Annotated[float, _real("a number above 0 and up to 1", gt=0, le=1)]
Part = Annotated[float, _real("a share between 0 and 1, both excluded", gt=0, lt=1)]
Temperature = Annotated[float, _real(f"a number of at least {LEAST_TEMPERATURE}", ge=LEAST_TEMPERATURE)]
Switch = Annotated[bool, Field(title="True or False")]
Text = Annotated[str, Field(title="text", pattern=r"^[^\x00]*$")]
# not strict: JSON and YAML have lists in place of tuples
Shares = Annotated[
    tuple[Share, Share, Share],
    Field(title="three numbers of at least 0 that sum to 1: easy, medium, hard", strict=False),
]
Bounds = Annotated[tuple[Amount, Amount], Field(title="two numbers of at least 0, the smaller first", strict=False)]
KNOBS = ("calculation_share", "calculation_steps", "sayings")  # of these texts
WITH_KNOBS = ("abacus", "abacus-dev")
WorldName = Literal["micro", "abacus"]
WORLDS: tuple[str, ...] = typing.get_args(WorldName)
Difficulty = Literal["entropy", "loss", "pass-rate", "learning-progress", "random"]
NO_EFFECT = {"out", "report_to", "rollouts_logged", "save_every", "state_seconds"}  # settings that change no result
MAY_CHANGE = ("branch_tokens", "on_nan", "report_to")  # in a run under way; the first may change last digits
IGNORED = NO_EFFECT | {*MAY_CHANGE}  # where two runs are compared


def group(title: str) -> Callable[[Any, str], Any]:
    """Return what declares a field of this group of the help: its default, and a sentence about it."""
    return lambda default, help: Field(default, description=help, json_schema_extra={"group": title})


_run = group("What runs, on what, where to")
_text = group("Text")
_world = group("The text of the world abacus")
_difficulty = group("Difficulty: entropy and tiers")
_budget = group("Dynamic token budget")
_curriculum = group("Curriculum")
_rl = group("Reinforcement learning on the chosen positions")
_ntp = group("Next-token prediction on the rest")
_start = group("Cold start")
_optimizer = group("Optimizer")
_measure = group("Measuring and saving")
_recipe = group("Recipe")
_shape = group("Model")


class Settings(BaseModel):
    """Frozen settings; every wrong value or unknown field is a UserError that names field, value and remedy."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(self._message(error, values)) from None

    @classmethod
    def _message(cls, error: ValidationError, values: Mapping[str, Any]) -> str:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if name not in cls.model_fields:
            near = difflib.get_close_matches(name, cls.model_fields)
            remedy = f"did you mean {' or '.join(near)}?" if near else "rmt-mini run --help lists all"
            return f"field {_shown(name)} is unknown; {remedy}"
        field = cls.model_fields[name]
        if typing.get_origin(field.annotation) is Literal:
            remedy = f"use one of {', '.join(typing.get_args(field.annotation))}"
        elif first["type"] == "less_than_equal" and first["ctx"]["le"] == _LARGEST:
            remedy = f"give a whole number of at most {_LARGEST}"
        else:
            remedy = f"give {field.title}" if field.title else first["msg"]
        return f"{name} is {_shown(values[name])}; {remedy}"

    def _require(self, name: str, fine: bool, remedy: str = "") -> None:
        if not fine:
            remedy = remedy or f"give {type(self).model_fields[name].title}"
            raise UserError(f"{name} is {_shown(getattr(self, name))}; {remedy}")

    def differences(self, other: Self) -> list[str]:
        """Return the names of the fields in which results may differ from those of other settings.

        Those that may change in a run under way are left out.

        Example:
            >>> RMTConfig(steps=5, report_to="wandb").differences(RMTConfig(steps=6))
            ['steps']
        """
        return [name for name, value in self if name not in IGNORED and value != getattr(other, name)]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again."""
        return type(self)(**{**dict(self), **changes})

    @model_serializer
    def to_dict(self) -> dict[str, Any]:
        """Return all fields, those at their defaults too; the constructor takes them back."""
        return dict(self)


class RMTConfig(Settings):
    """All settings of one RMT run.

    Example:
        >>> RMTConfig(steps=0)
        Traceback (most recent call last):
        ...
        rmt_mini.errors.UserError: steps is 0; give a whole number of at least 1
    """

    preset: Text = _run("custom", "name of the preset these settings began with")
    model: Text = _run("smollm2-135m", "bundled model (smollm2-135m, micro), folder of a causal LM, or hub id")
    corpus: Text = _run("champ", "'champ', 'micro', a .txt or .jsonl file, a folder of .txt files, or hf:NAME")
    column: Text = _run("text", "field of a .jsonl line or Hugging Face dataset that holds the text")
    steps: Count = _run(60, "T, RMT steps")
    seed: Natural = _run(0, "seed of every random choice")
    out: Text = _run("", "run folder; empty chooses runs/PRESET-seedN")
    device: Text = _run("auto", "auto, cpu or cuda")
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = _run("auto", "of weights and activations")

    document_tokens: Several = _text(160, "longest text, tokens; a longer document gives several, one of champ is cut")
    min_document_tokens: Count = _text(48, "shorter documents are left out, tokens")
    evaluation_fraction: Part = _text(0.25, "share of documents held out")

    calculation_share: Share = _world(1.0, "share of documents with calculations")
    calculation_steps: Depth = _world(0, "steps of every calculation, 1 to 4; 0: 3 or 4, as they come")
    sayings: Sayings = _world(1.0, "sayings a document, on average")

    difficulty: Difficulty = _difficulty("entropy", "of a token: entropy, or another in tiers of the same sizes")
    entropy_top_k: Natural = _difficulty(0, "entropy over the k likeliest tokens only; 0 takes all")
    entropy_model: Text = _difficulty("self", "'self', or a small proxy model with the same tokenizer")
    tier_rule: Literal["fixed", "quantile"] = _difficulty("fixed", "fixed: nats; quantile: shares of the positions")
    tier_thresholds: Bounds = _difficulty((1.0, 3.0), "easy up to the first, hard above the second")

    use_budget: Switch = _budget(True, "state a shrinking budget and reward its use")
    budget_start: Count = _budget(16, "B_0, thought tokens; also half the cap where no budget is used")
    budget_min: Count = _budget(4, "B_min, thought tokens")
    budget_decay: PositiveShare = _budget(0.2, "gamma: B_T / B_0, in (0, 1]")
    budget_rule: Literal["step", "entropy"] = _budget("step", "step: B_t; entropy: B_t x entropy / the step's mean")
    length_weight: Share = _budget(0.2, "w, share of the length reward in the reward")
    length_if_correct: Switch = _budget(False, "give the length reward to right answers only (differs from the paper)")

    use_curriculum: Switch = _curriculum(True, "sample tiers by the curriculum; else positions uniformly")
    curriculum_start: Share = _curriculum(0.3, "t1 as a share of T")
    curriculum_end: Share = _curriculum(0.7, "t2 as a share of T")
    tier_probs_early: Shares = _curriculum((0.6, 0.3, 0.1), "p_early over easy, medium, hard")
    tier_probs_late: Shares = _curriculum((0.2, 0.4, 0.4), "p_late over easy, medium, hard")

    use_rl: Switch = _rl(True, "train by GRPO on the chosen positions; else next-token prediction only")
    rl_rule: Literal["grpo", "correct", "shuffled"] = _rl("grpo", "controls: imitate correct rollouts, shuffle rewards")
    reward_rule: Literal["match", "information-gain"] = _rl("match", "is the answer right, or nats the thought adds")
    use_thinking: Switch = _rl(True, "think before the answer; else answer at once (control)")
    answer_format: Literal["auto", "continuation", "chat"] = _rl("auto", "how a model thinks and answers")
    prefix_match: Switch = _rl(False, "continuation format: byte prefix match instead of equal token id")
    group_size: Count = _rl(8, "G, rollouts a position")
    positions_per_document: Count = _rl(3, "positions drawn from a document in a step")
    documents_per_step: Count = _rl(2, "documents a step")
    temperature: Temperature = _rl(1.0, "of sampling in training and evaluation")
    scale_advantages: Switch = _rl(True, "divide advantages by the group's standard deviation")
    loss_per: Literal["token", "rollout"] = _rl("token", "token: mean over tokens; rollout: the paper's sum")
    clip_epsilon: Amount = _rl(0.0, "PPO clipping of the ratio to the sampling policy; 0 is off")
    updates_per_step: Count = _rl(1, "optimizer updates on one step's rollouts")
    kl_weight: Amount = _rl(0.0, "beta, weight of KL to the policy RMT began with; 0 is off")

    use_ntp: Switch = _ntp(True, "add the next-token loss on all positions not chosen")
    ntp_weight: Amount = _ntp(0.1, "lambda")

    warmup_steps: Natural = _start(16, "supervised steps that teach the answer format; 0 is none")
    warmup_positions: Count = _start(24, "positions a cold start step asks, one thought each")
    warmup_learning_rate: Positive = _start(1.5e-4, "learning rate of the cold start")

    learning_rate: Positive = _optimizer(3e-5, "of AdamW in RMT")
    weight_decay: Amount = _optimizer(0.0, "of AdamW")
    max_grad_norm: Positive = _optimizer(1.0, "gradients are scaled down to this norm")
    on_nan: Literal["stop", "skip"] = _optimizer("stop", "at a step whose loss or gradient is not finite")
    branch_tokens: Count = _optimizer(512, "branch tokens in one forward-backward pass: memory, not result")

    evaluation_positions: Count = _measure(240, "held-out positions, spread evenly over the tiers")
    evaluation_documents: Count = _measure(40, "most held-out documents they come from")
    evaluation_budget: Natural = _measure(0, "budget stated in evaluation; 0: B_0 before, B_T after")
    evaluation_thresholds: Bounds = _measure((0.0, 0.0), "tiers of the held-out positions; 0 0: tier_thresholds")
    evaluation_thoughts: Count = _measure(1, "thoughts at each held-out position; accuracy is their mean")
    checked_positions: Natural = _measure(
        60, "held-out positions of curve and probe, training positions that choose the gate's threshold; 0: none"
    )
    curve_every: Natural = _measure(10, "steps between points of the learning curve; 0: none")
    preflight_positions: Count = _measure(18, "training positions that a run's pre-flight asks, a group each")
    save_every: Natural = _measure(0, "steps between checkpoints; 0 saves at the end only")
    state_seconds: Amount = _measure(60.0, "least time between two saved states: the most that a killed run loses")
    rollouts_logged: Natural = _measure(8, "rollouts a step written to rollouts.jsonl")
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = _measure("none", "where metrics are shown as well")

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for name in ("tier_probs_early", "tier_probs_late"):
            self._require(name, abs(sum(getattr(self, name)) - 1) < 1e-6)
        for name in ("tier_thresholds", "evaluation_thresholds"):
            low, high = getattr(self, name)
            self._require(name, low <= high)
            self._require(name, high <= 1 or self.tier_rule != "quantile", "with tier_rule 'quantile' give shares")
        for least, most in (("budget_min", "budget_start"), ("min_document_tokens", "document_tokens")):
            largest = getattr(self, most)
            self._require(least, getattr(self, least) <= largest, f"it must not exceed {most} ({largest})")
        for name in KNOBS:
            own = self.corpus in WITH_KNOBS or getattr(self, name) == type(self).model_fields[name].default
            self._require(name, own, f"only the corpus 'abacus' has it, and corpus is {self.corpus!r}")
        before = self.curriculum_start < self.curriculum_end
        self._require("curriculum_start", before, f"it must lie below curriculum_end ({self.curriculum_end})")
        compared = self.group_size >= 2 or not self.use_rl
        self._require("group_size", compared, "a group needs at least 2 rollouts to compare")
        nothing = "so nothing would train"
        self._require("use_ntp", self.use_rl or self.use_ntp, f"use_rl is off too, {nothing}: set one")
        trains = self.use_rl or self.ntp_weight > 0
        self._require("ntp_weight", trains, f"use_rl is off, {nothing}: give a number above 0")
        if self.reward_rule == "information-gain":
            one_token = "it needs answers of one token: use answer_format 'continuation', or reward_rule 'match'"
            self._require("reward_rule", self.answer_format != "chat", one_token)
            thinks = "it rewards thoughts, and use_thinking is off: set it, or use reward_rule 'match'"
            self._require("reward_rule", self.use_thinking, thinks)
        clipped = self.updates_per_step == 1 or self.clip_epsilon > 0
        self._require("updates_per_step", clipped, "more than one update needs clip_epsilon above 0 (0.2 is usual)")
        return self


class PretrainConfig(Settings):
    """Settings of pre-training, from scratch or from a model: its shape, and the recipe."""

    world: WorldName = _recipe("micro", "whose text is read")
    model: Text = _recipe("", "model to go on from; empty: a new one, of the shape below")
    steps: Count = _recipe(2700, "optimizer steps")
    seed: Natural = _recipe(0, "seed of weights and text")
    out: Text = _recipe("", "folder; empty chooses runs/pretrain-WORLD-seedN")
    device: Text = _recipe("auto", "auto, cpu or cuda")
    documents_per_step: Count = _recipe(16, "documents a step")
    learning_rate: Positive = _recipe(2e-3, "peak, of AdamW")
    weight_decay: Amount = _recipe(0.01, "of AdamW")
    rise: Count = _recipe(40, "steps over which the learning rate rises")

    hidden_size: Count = _shape(160, "width of the model")
    intermediate_size: Count = _shape(448, "width inside its feed-forward layers")
    layers: Count = _shape(3, "layers of the model")
    heads: Count = _shape(5, "attention heads")

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        fine = self.hidden_size % (2 * self.heads) == 0  # rotary embeddings turn pairs of dimensions
        self._require("hidden_size", fine, f"give an even multiple of heads ({self.heads})")
        return self


def data(name: str) -> Any:
    """Read a YAML file of the package, by its path in it."""
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


NOT_IN_POSTTRAINING: list[str] = data("unused_in_posttraining.yaml")


def _shown(value: object) -> str:
    """Show any value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:120]}..."


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which 3e-5 is a number, as in JSON; YAML 1.1 wants 3.0e-5."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read_settings(path: Path, without: Iterable[str] = ()) -> dict[str, Any]:
    """Read fields and values from a YAML file, or from a run's folder or run.json: all but ``out`` and ``without``."""
    path = path / "run.json" if path.is_dir() else path
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
        if isinstance(found, dict) and isinstance(found.get("config"), dict):
            found = {name: value for name, value in found["config"].items() if name not in {"out", *without}}
        if isinstance(found, dict):
            return {str(name): value for name, value in found.items()}
        reason = f"it holds {_shown(found)}"
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
    raise UserError(f"config file {str(path)!r} is not usable ({reason}); give a YAML file of fields and values")


PRESETS = {path.stem: read_settings(path) for path in sorted((Path(__file__).parent / "presets").glob("*.yaml"))}


def preset(name: str, **changes: Any) -> RMTConfig:
    """Return one of PRESETS, or the defaults as "custom", with some fields changed; what is unknown is a UserError.

    Example:
        >>> preset("laptop", steps=3).steps
        3
    """
    if name not in (*PRESETS, "custom"):
        raise UserError(f"preset {name!r} is unknown; use one of {', '.join(PRESETS)}")
    own = {key: value for key, value in PRESETS.get(name, {}).items() if key != "column" or "corpus" not in changes}
    return RMTConfig(**{"preset": name, **own, **changes})
