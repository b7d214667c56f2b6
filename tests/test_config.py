from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.errors import UserError

WHOLE = "whole number of at least 1"
NATURAL = "whole number of at least 0"
REAL = "number of at least 0"
ABOVE = "number above 0"
BAD = [
    ("steps", 0, WHOLE),
    ("steps", 2.0, WHOLE),
    ("steps", True, WHOLE),
    ("steps", "3", WHOLE),
    ("document_tokens", -1, WHOLE),
    ("min_document_tokens", 0, WHOLE),
    ("budget_start", 0, WHOLE),
    ("budget_min", 0, WHOLE),
    ("group_size", 0, WHOLE),
    ("positions_per_document", 0, WHOLE),
    ("documents_per_step", 0, WHOLE),
    ("updates_per_step", 0, WHOLE),
    ("branch_tokens", 0, WHOLE),
    ("evaluation_positions", 0, WHOLE),
    ("seed", -1, NATURAL),
    ("entropy_top_k", -1, NATURAL),
    ("warmup_steps", 1.5, NATURAL),
    ("evaluation_budget", -1, NATURAL),
    ("save_every", None, NATURAL),
    ("rollouts_logged", -1, NATURAL),
    ("clip_epsilon", -0.1, REAL),
    ("kl_weight", -0.1, REAL),
    ("kl_weight", float("nan"), REAL),
    ("ntp_weight", float("inf"), REAL),
    ("weight_decay", "0.1", REAL),
    ("length_weight", -0.1, REAL),
    ("length_weight", 1.1, "from 0 to 1"),
    ("temperature", 0, ABOVE),
    ("warmup_learning_rate", 0.0, ABOVE),
    ("learning_rate", float("nan"), ABOVE),
    ("learning_rate", True, ABOVE),
    ("max_grad_norm", -1.0, ABOVE),
    ("budget_decay", 0.0, ABOVE),
    ("budget_decay", 1.5, "up to 1"),
    ("tier_rule", "mixed", "fixed, quantile"),
    ("answer_format", "poem", "auto, continuation, chat"),
    ("loss_per", "step", "token, rollout"),
    ("dtype", "int8", "auto, float32"),
    ("tier_probs_early", (0.5, 0.5), "three numbers"),
    ("tier_probs_early", (0.5, 0.5, 0.5), "sum to 1"),
    ("tier_probs_late", (1.5, -0.5, 0.0), "at least 0"),
    ("tier_probs_late", (float("nan"), 0.5, 0.5), "three numbers"),
    ("tier_thresholds", (3.0, 1.0), "smaller first"),
    ("tier_thresholds", (-1.0, 1.0), "at least 0"),
    ("tier_thresholds", (1.0,), "two numbers"),
    ("tier_probs_early", None, "3 numbers"),
    ("tier_thresholds", 1.0, "2 numbers"),
    ("use_rl", "no", "True or False"),
    ("use_budget", 1, "True or False"),
    ("model", 5, "text"),
    ("budget_min", 10_000, f"budget_start ({RMTConfig().budget_start})"),
    ("curriculum_start", 1.1, f"curriculum_end ({RMTConfig().curriculum_end})"),
    ("curriculum_start", -0.1, "both from 0 to 1"),
    ("curriculum_start", 0.7, "below curriculum_end"),
    ("evaluation_fraction", 0.0, "both excluded"),
    ("evaluation_fraction", 1.0, "both excluded"),
    ("group_size", 1, "at least 2 rollouts"),
    ("min_document_tokens", 10_000, f"document_tokens ({RMTConfig().document_tokens})"),
    ("updates_per_step", 2, "clip_epsilon"),
]


@pytest.mark.parametrize(("name", "value", "part"), BAD, ids=[f"{name}={value}" for name, value, _ in BAD])
def test_a_bad_value_is_refused_in_one_line_that_names_field_value_and_remedy(name: str, value: Any, part: str) -> None:
    with pytest.raises(UserError) as caught:
        RMTConfig(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}; ")
    assert part in message.split("; ", 1)[1]
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"use_rl": False, "use_ntp": False}, "use_ntp"),
        ({"tier_rule": "quantile", "tier_thresholds": (0.5, 1.5)}, "tier_thresholds"),
        ({"curriculum_end": 1.2}, "curriculum_start"),
        ({"budget_start": 3, "budget_min": 4}, "budget_min"),
        ({"document_tokens": 20, "min_document_tokens": 21}, "min_document_tokens"),
    ],
)
def test_settings_that_only_clash_together_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name} is .*; [^\n]*$"):
        RMTConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"group_size": 1, "use_rl": False},
        {"updates_per_step": 2, "clip_epsilon": 0.2},
        {"budget_decay": 1, "length_weight": 0, "ntp_weight": 0},
        {"length_weight": 1.0, "curriculum_start": 0.0, "curriculum_end": 0.01},
        {"tier_rule": "quantile", "tier_thresholds": (0.3, 0.7)},
        {"budget_start": 4, "budget_min": 4, "document_tokens": 256, "min_document_tokens": 256},
    ],
)
def test_values_at_the_edge_are_taken(changes: dict[str, Any]) -> None:
    config = RMTConfig(**changes)
    assert {name: getattr(config, name) for name in changes} == changes


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str) -> None:
    config = preset(name, seed=7, tier_probs_late=(0.1, 0.2, 0.7))
    assert (config.preset, config.seed) == (name, 7)
    for field, value in PRESETS[name].items():
        assert getattr(config, field) == value or field == "tier_probs_late"
    again = RMTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.tier_probs_late == (0.1, 0.2, 0.7)
    assert set(config.to_dict()) == {field.name for field in dataclasses.fields(RMTConfig)}


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^preset 'huge' is unknown; use one of .*laptop"):
        preset("huge")
    for attempt in (
        lambda: preset("laptop", step=3),
        lambda: RMTConfig.from_dict({"step": 3}),
        lambda: RMTConfig().replace(step=3),
    ):
        with pytest.raises(UserError, match=r"^field 'step' is unknown; .*steps"):
            attempt()


def test_replace_checks_again_and_leaves_the_original() -> None:
    config = RMTConfig()
    assert config.replace(steps=3).steps == 3
    assert config.steps == RMTConfig().steps
    with pytest.raises(UserError, match="steps is 0"):
        config.replace(steps=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 5  # type: ignore[misc]


def test_every_field_has_a_sentence_for_the_help() -> None:
    for field in dataclasses.fields(RMTConfig):
        assert field.metadata["help"], field.name


# What sources of the paper state, as data/ and docs/ have it; None: not stated, so every preset's value is ours.
PAPER: dict[str, Any] = {
    "steps": 316, "documents_per_step": 128, "positions_per_document": None, "document_tokens": None,
    "answer_format": "chat", "warmup_steps": 0, "group_size": 8, "scale_advantages": True, "loss_per": "rollout",
    "kl_weight": None, "learning_rate": 1e-6, "budget_start": 800, "budget_min": 1, "budget_decay": 0.2,
    "length_weight": None, "length_if_correct": False, "tier_thresholds": None, "curriculum_start": 0.3,
    "curriculum_end": 0.7, "tier_probs_early": None, "tier_probs_late": None, "ntp_weight": 0.1,
    "evaluation_documents": 200, "evaluation_fraction": 0.047,  # 200 of 4,251
}  # fmt: skip


def test_readme_lists_every_departure_of_every_preset_from_the_paper() -> None:
    def shown(value: object) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line[:1] == "|"]
    head = next(row for row in rows if row[:2] == ["setting", "the paper"])
    names = [cell.strip("`") for cell in head[2:]]
    assert names == list(PRESETS)
    listed = {row[0].split("`")[1]: row[1:] for row in rows[rows.index(head) + 2 :][: len(PAPER)]}
    assert set(listed) == set(PAPER)
    for field, (stated, *cells) in listed.items():
        paper = PAPER[field]
        words = "not stated" if paper is None else shown(paper)
        assert stated == ("none stated" if field == "warmup_steps" else words)
        for name, cell in zip(names, cells, strict=True):
            value = getattr(preset(name), field)
            differs = paper is not None and value != paper
            assert cell == (f"**{shown(value)}**" if differs else shown(value)), (field, name)
    # a switch of the method, or a measure of difficulty, that a preset turns from the default needs a row of its own
    plain = RMTConfig()
    sizes = {
        "preset", "model", "corpus", "column", "dtype", "min_document_tokens", "branch_tokens", "evaluation_positions",
        "evaluation_documents", "preflight_positions", "save_every",
    }  # fmt: skip
    for name in PRESETS:
        changed = {key for key, value in preset(name).to_dict().items() if value != getattr(plain, key)}
        assert changed <= set(PAPER) | sizes, (name, changed - set(PAPER) - sizes)


def test_an_unknown_field_is_answered_by_the_nearest_ones_in_one_short_line() -> None:
    with pytest.raises(UserError, match=r"^field 'budget_begin' is unknown; did you mean budget_.*\?$"):
        preset("micro", budget_begin=3)
    with pytest.raises(UserError) as refused:
        RMTConfig.from_dict({"x" * 5000: 1})
    assert len(str(refused.value)) < 250


def test_another_corpus_leaves_the_preset_s_column_behind() -> None:
    assert preset("paper").column == "problem+solution"
    assert preset("paper", corpus="my.txt").column == "text"
    assert preset("paper", corpus="my.jsonl", column="body").column == "body"
