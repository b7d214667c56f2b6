"""On one process TRL's trainer computes what the document tree computes: the same C, losses, gradients, weights."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rmt_mini.config import RMTConfig
from rmt_mini.engine.text import format_for, to_texts
from rmt_mini.scale.launch import ScaleSettings
from rmt_mini.scale.trainer import RMTGRPOTrainer
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from tests.fakes import make_tiny_policy, widen
from tests.scale.tiny import documents, settings_of_run
from tests.stages.tiny import ARROWS


def tree_run(config: RMTConfig) -> tuple[Any, Any, list[StepResult]]:
    """Train by the tree; returns the model as it began, its tokenizer and policy, and every step."""
    policy = widen(make_tiny_policy("qwen3"), ord("<"), 3.0)
    begun = copy.deepcopy(policy.model)
    steps: list[StepResult] = []
    texts = to_texts(documents(ARROWS), format_for(policy, config), config, "training")
    RMTTrainer(config, policy, texts).fit(steps.append)
    return begun, policy, steps


def replay(steps: list[StepResult]) -> Any:
    """Let TRL sample what the tree sampled; complain where it asks elsewhere."""

    def generate(trainer: Any, prompts: list[list[int]], most: int, stop: list[int], copies: int) -> Any:
        rollouts = [judged.rollout for judged in steps[trainer.positions.step].judged]
        asked = [q.position for q in trainer.questions]
        assert [(p.trunk, p.index, p.tier) for p in asked] == [
            (r.position.trunk, r.position.index, r.position.tier) for r in rollouts
        ]
        budgets = [q.budget if trainer.config.use_budget else None for q in trainer.questions]
        assert budgets == [r.budget for r in rollouts]
        if copies > 1:
            return [[*r.thought, *stop[: int(r.closed)]] + [98] * (most - len(r.thought)) for r in rollouts], None
        return [list(r.answer) for r in rollouts], None

    return generate


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss_per": "rollout", "scale_advantages": False, "length_if_correct": True, "ntp_weight": 0.5},
        {"temperature": 0.7, "updates_per_step": 2, "clip_epsilon": 0.2, "budget_rule": "entropy"},
        {"kl_weight": 0.3, "updates_per_step": 2, "clip_epsilon": 0.05},
        {"use_ntp": False, "use_curriculum": False, "tier_rule": "fixed", "tier_thresholds": (3.0, 4.5)},
        {"use_budget": False, "steps": 1},
    ],
    ids=["plain", "by rollout", "two updates, other temperature", "KL and clip", "RL alone", "no budget"],
)
def test_losses_and_weights_are_those_of_the_tree(changes: dict[str, Any], tmp_path: Path) -> None:
    config = settings_of_run(**{"steps": 2, "learning_rate": 1e-4} | changes)
    begun, policy, steps = tree_run(config)
    assert any(judged.advantage for step in steps for judged in step.judged)
    begun.save_pretrained(tmp_path / "model")
    trainer = RMTGRPOTrainer(
        config,
        ScaleSettings(micro_batch=4, checkpointing=False, cpu=True),
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"),  # TRL opens it once more, as the KL's reference
        policy.tokenizer,
        documents(ARROWS),
        str(tmp_path),
        generate=replay(steps),
    )
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(steps)
    for line, step in zip(lines, steps, strict=True):
        # AdamW's first step is the gradient's sign, which rounding may turn; a later gradient tells
        assert line["grad_norm"] == pytest.approx(step.metrics.grad_norm, rel=1e-3)
        for name in ("rl_loss", "ntp_loss", "reward", "match_reward", "length_reward", "thought_length"):
            assert line[name] == pytest.approx(getattr(step.metrics, name), rel=1e-4, abs=1e-4), name
        for name in ("step", "budget", "rl_tokens", "ntp_tokens"):
            assert line[name] == getattr(step.metrics, name), name
        assert tuple(line["tier_counts"]) == step.metrics.tier_counts
        assert line["signal_groups"] == pytest.approx(step.metrics.signal_groups)
    before, ours, theirs = (dict(model.named_parameters()) for model in (begun, policy.model, trainer.model))
    moved = torch.cat([(ours[name] - before[name]).flatten() for name in ours])
    apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in ours])
    assert moved.norm() > 0
    assert apart.norm() < 1e-2 * moved.norm()
