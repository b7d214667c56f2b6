"""Whatever a setting is given, there is a valid configuration or one line that names field, value and remedy."""

import json
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.arms import arms_named
from rmt_mini.bench.sizes import Setting
from rmt_mini.config import PRESETS, PretrainConfig, RMTConfig, Settings, preset, read_settings
from rmt_mini.errors import UserError
from rmt_mini.scale.launch import ScaleSettings
from tests.outcomes import either

FIELDS = {name: field.default for name, field in RMTConfig.model_fields.items()}
BAD: dict[str, list[tuple[str, Any]]] = {  # remedy: fields and their values
    "give a whole number of at least 1": [
        ("steps", 0), ("steps", 2.0), ("steps", True), ("steps", "3"), ("group_size", 0), ("branch_tokens", 0)
    ],
    f"give a whole number of at most {2**63 - 1}": [("steps", 2**63), ("seed", 2**70)],
    "give a whole number of at least 2": [("document_tokens", 1)],
    "give a whole number of at least 0": [("seed", -1), ("warmup_steps", 1.5), ("save_every", None)],
    "give a number of at least 0": [
        ("clip_epsilon", -0.1), ("kl_weight", math.nan), ("ntp_weight", math.inf), ("weight_decay", "0.1")
    ],
    "give a number above 0": [("learning_rate", 0.0), ("learning_rate", True), ("max_grad_norm", 0.0)],
    "give a number of at least 0.001": [("temperature", 1e-42)],
    "give a number from 0 to 1": [("length_weight", 1.1)],
    "give a number above 0 and up to 1": [("budget_decay", 0.0), ("budget_decay", 1.5)],
    "give a share between 0 and 1, both excluded": [("evaluation_fraction", 0.0), ("evaluation_fraction", 1.0)],
    "use one of fixed, quantile": [("tier_rule", "mixed"), ("tier_rule", 3)],
    "give three numbers of at least 0 that sum to 1: easy, medium, hard": [
        ("tier_probs_early", (0.5, 0.5)), ("tier_probs_early", (0.5, 0.5, 0.5)), ("tier_probs_early", None),
        ("tier_probs_late", (1.5, -0.5, 0.0)), ("tier_probs_late", (math.nan, 0.5, 0.5)),
    ],
    "give two numbers of at least 0, the smaller first": [
        *(("tier_thresholds", value) for value in ((-1.0, 1.0), (1.0,), 1.0)), ("evaluation_thresholds", (3.0, 1.0)),
    ],
    "give True or False": [("use_rl", "no"), ("use_rl", 1), ("use_rl", None)],
    "give text": [("model", 5), ("model", "a\0b"), ("model", "\ud800"), ("model", None)],
    "it must not exceed budget_start (16)": [("budget_min", 17)],
    "it must not exceed document_tokens (160)": [("min_document_tokens", 161)],
    "it must lie below curriculum_end (0.7)": [("curriculum_start", 0.7)],
    "a group needs at least 2 rollouts to compare": [("group_size", 1)],
    "more than one update needs clip_epsilon above 0 (0.2 is usual)": [("updates_per_step", 2)],
}  # fmt: skip


@pytest.mark.parametrize("remedy", BAD)
def test_a_bad_value_is_refused_in_one_line_that_names_field_value_and_remedy(remedy: str) -> None:
    for name, value in BAD[remedy]:
        for make in (RMTConfig, RMTConfig().replace, partial(preset, "laptop")):
            assert either(partial(make, **{name: value})) == (None, f"{name} is {value!r}; {remedy}")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"use_rl": False, "use_ntp": False}, "use_ntp"),
        ({"use_rl": False, "ntp_weight": 0.0}, "ntp_weight"),
        ({"tier_rule": "quantile", "tier_thresholds": (0.5, 1.5)}, "tier_thresholds"),
        ({"reward_rule": "information-gain", "answer_format": "chat"}, "reward_rule"),
        ({"reward_rule": "information-gain", "use_thinking": False}, "reward_rule"),
        ({"reward_rule": "information-gain"}, None),
        ({"group_size": 1, "use_rl": False}, None),
        ({"updates_per_step": 2, "clip_epsilon": 0.2}, None),
        ({"budget_decay": 1, "length_weight": 0, "ntp_weight": 0}, None),
        ({"length_weight": 1.0, "curriculum_start": 0.0, "curriculum_end": 0.01}, None),
        ({"tier_rule": "quantile", "tier_thresholds": (0.3, 0.7)}, None),
        ({"budget_start": 4, "budget_min": 4, "document_tokens": 48, "seed": 2**63 - 1}, None),
    ],
)
def test_settings_that_clash_only_together_are_refused_and_those_at_the_edge_taken(
    changes: dict[str, Any], name: str | None
) -> None:
    config, message = either(partial(RMTConfig, **changes))
    assert str(message).startswith(f"{name} is ") if name else changes.items() <= config.to_dict().items()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_files_and_processes(name: str) -> None:
    config = preset(name, seed=7)
    assert {**PRESETS[name], "preset": name, "seed": 7}.items() <= json.loads(config.model_dump_json()).items()
    assert set(config.to_dict()) == set(FIELDS)
    assert pickle.loads(pickle.dumps(config)) == config
    survives(config)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^preset 'huge' is unknown; use one of .*laptop"):
        preset("huge")
    for attempt in (RMTConfig, RMTConfig().replace, partial(preset, "laptop")):
        with pytest.raises(UserError, match=r"^field 'budget_begin' is unknown; did you mean budget_.*\?$"):
            attempt(budget_begin=3)
    with pytest.raises(UserError, match=r"^field 'xxx") as refused:
        RMTConfig(**{"x" * 5000: 1})
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("kind", [RMTConfig, PretrainConfig, Setting, ScaleSettings])
def test_every_field_has_a_help_sentence_and_a_group_and_does_not_change(kind: type[Settings]) -> None:
    for field in kind.model_fields.values():
        assert field.description
        assert dict(field.json_schema_extra or {})["group"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frozen"):
        setattr(kind(), next(iter(kind.model_fields)), 5)


def test_another_corpus_does_not_take_the_preset_s_column() -> None:
    assert preset("paper").column == "problem+solution"
    assert preset("paper", corpus="my.txt").column == "text"
    assert preset("paper", corpus="my.jsonl", column="body").column == "body"


# Files of settings


RECORDED = json.dumps({"kind": "run", "config": RMTConfig(learning_rate=1e-6, out="x").to_dict()})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"steps: 3\nlearning_rate: 3e-5\ntier_thresholds: [1, 2]", (3, 3e-5, (1.0, 2.0))),
        (b"", (60, 3e-5, (1.0, 3.0))),
        (RECORDED.encode(), (60, 1e-6, (1.0, 3.0))),
        (b"a: [1", r"\(.*expected.*\); give a YAML file"),
        (b"- 1", r"\(it holds \[1\]\); give a YAML file"),
        (b"\xff\xfe", r"\(.*utf-8.*\); give a YAML file"),
        (None, r"\(No such file.*\); give a YAML file"),
    ],
)
def test_a_file_of_settings_or_a_run_folder_is_read_or_refused(
    content: bytes | None, found: tuple[Any, ...] | str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    for path in (tmp_path / "run.json", tmp_path):
        if isinstance(found, str):
            with pytest.raises(UserError, match=rf"^config file '.*run.json' is not usable {found}"):
                read_settings(path)
        else:
            config = RMTConfig(**read_settings(path))
            assert (config.out, config.steps, config.learning_rate, config.tier_thresholds) == ("", *found)


# Any value


def survives(config: RMTConfig, *names: str) -> None:
    """Plain values, JSON and YAML make the same again; of YAML, which is slow, the named fields or all."""
    plain = json.loads(config.model_dump_json())  # in which tuples are lists
    some = {name: plain[name] for name in names or plain}
    for values in (config.to_dict(), plain, plain | yaml.safe_load(yaml.safe_dump(some))):
        assert RMTConfig(**values) == config


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
ODD = st.sampled_from(
    [2**63, 1e308, 5e-324, "a\nb", "x" * 10_000, np.arange(500.0), np.float64(0.5), np.int64(3), np.bool_(True),
     object(), {"a": 1}, (), (1.0,) * 1000, (float("nan"),) * 3, (1, 0, 0), [1, 0, 0], (True, False, False), "１２"]
)  # fmt: skip
ANY = PLAIN | ODD | st.lists(PLAIN, max_size=3) | st.lists(PLAIN, max_size=3).map(tuple)


def drawn_like(default: Any) -> st.SearchStrategy[Any]:
    """Values of the default's own kind, at which a field is more likely to be valid."""
    kinds = {bool: st.booleans(), int: st.integers(0, 300), float: st.floats(0, 2)}
    if isinstance(default, tuple):
        return st.sampled_from([default, tuple(reversed(default)), (0,) * (len(default) - 1) + (1,)])
    return kinds.get(type(default), st.sampled_from([default, "auto", "fixed", "quantile", "grpo", "a b", "é"]))


LIKELY = st.fixed_dictionaries({}, optional={name: drawn_like(default) for name, default in FIELDS.items()})


def made(make: Callable[[], RMTConfig], name: str = "") -> RMTConfig | None:
    """Return the configuration, or None where it was refused in one line that names field, value and remedy."""
    config: RMTConfig | None
    config, message = either(make)
    if message is not None:
        field, _, rest = message.partition(" is ")
        assert field in FIELDS
        assert name in (field, "") or name in rest  # of two that clash, either may be named
        assert all(rest.rpartition("; "))
    return config


@given(value=ANY)
@settings(max_examples=50)
def test_any_value_of_any_field(value: Any) -> None:
    for name in FIELDS:
        config = made(partial(RMTConfig, **{name: value}), name)
        if config is not None:
            assert getattr(config, name) == (tuple(value) if isinstance(value, list) else value)
            survives(config, name)
    for name in PretrainConfig.model_fields:
        _, message = either(partial(PretrainConfig, **{name: value}))
        assert message is None or message.startswith((f"{name} is ", "hidden_size is "))


@given(values=LIKELY, name=st.sampled_from(sorted(FIELDS)), value=ANY)
def test_a_changed_copy_is_the_configuration_made_at_once(values: dict[str, Any], name: str, value: Any) -> None:
    config = made(lambda: RMTConfig(**values))
    if config is not None:
        survives(config)
        one, other = partial(config.replace, **{name: value}), partial(RMTConfig, **values | {name: value})
        assert either(one) == either(other)


# What sources of the paper state, as data/ and docs/ have it; None: not stated, so every preset's value is ours.
PAPER: dict[str, Any] = {
    "steps": 316, "documents_per_step": 128, "positions_per_document": None, "document_tokens": None,
    "answer_format": "chat", "warmup_steps": 0, "group_size": 8, "scale_advantages": True, "loss_per": "rollout",
    "kl_weight": None, "learning_rate": 1e-6, "budget_start": 800, "budget_min": 1, "budget_decay": 0.2,
    "length_weight": None, "length_if_correct": False, "tier_thresholds": None, "curriculum_start": 0.3,
    "curriculum_end": 0.7, "tier_probs_early": None, "tier_probs_late": None, "ntp_weight": 0.1,
    "evaluation_documents": 200, "evaluation_fraction": 0.047,  # 200 of 4,251
}  # fmt: skip


def test_readme_lists_every_difference_of_every_preset_from_the_paper() -> None:
    def shown(value: object) -> str:
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line[:1] == "|"]
    head = next(row for row in rows if row[:2] == ["setting", "the paper"])
    names = [cell.strip("`") for cell in head[2:]]
    assert set(names) == set(PRESETS)
    listed = {row[0].split("`")[1]: row[1:] for row in rows[rows.index(head) + 2 :][: len(PAPER)]}
    for field, paper in PAPER.items():
        stated = "none stated" if field == "warmup_steps" else "not stated" if paper is None else shown(paper)
        values = [getattr(preset(name), field) for name in names]
        cells = [shown(value) if paper in (None, value) else f"**{shown(value)}**" for value in values]
        assert listed.pop(field) == [stated, *cells], field
    assert not listed
    # a switch of the method, or a measure of difficulty, that a preset changes from the default needs its own row
    sizes = {
        "preset", "model", "corpus", "column", "dtype", "min_document_tokens", "branch_tokens", "evaluation_positions",
        "evaluation_documents", "evaluation_thoughts", "checked_positions", "curve_every", "preflight_positions",
        "save_every",
    }  # fmt: skip
    for name in PRESETS:
        changed = {key for key, value in preset(name).to_dict().items() if value != FIELDS[key]}
        assert changed <= set(PAPER) | sizes, (name, changed - set(PAPER) - sizes)


@pytest.mark.parametrize("name", PRESETS)
def test_the_arm_to_the_letter_has_every_value_that_the_paper_states_but_for_sizes(name: str) -> None:
    of_size = {
        "steps", "documents_per_step", "group_size", "answer_format", "warmup_steps", "learning_rate", "budget_start",
        "evaluation_documents", "evaluation_fraction",
    }  # fmt: skip
    base = preset(name, curriculum_start=0.2, curriculum_end=0.9)
    (arm,) = (one for one in arms_named(base) if one.name == "rmt-paper")
    stated = {field: value for field, value in PAPER.items() if value is not None and field not in of_size}
    assert arm.config(base) == base.replace(**stated)
