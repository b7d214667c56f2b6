"""A tiny random model of Qwen3's shape, its texts, and scripted rollouts that do not depend on how work is spread."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.records import Document
from rmt_mini.scale.launch import ScaleSettings
from tests.stages.tiny import SENTENCES, small

CPU = ScaleSettings(micro_batch=4, checkpointing=False, cpu=True)


def settings_of_run(**changes: Any) -> RMTConfig:
    """Two documents, four positions, four rollouts each: 16 rows a step."""
    fields: dict[str, Any] = {"positions_per_document": 2, "documents_per_step": 2, "warmup_steps": 0, "model": "tiny"}
    return small(**fields | changes)


def run_settings(out: Path, model: object) -> RMTConfig:
    """Three documents, 24 rollouts a step, a checkpoint each; the corpus is written beside the folder."""
    corpus = out.with_suffix(".jsonl")
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES), encoding="utf-8")
    return settings_of_run(out=str(out), model=str(model), corpus=str(corpus), documents_per_step=3, save_every=1)


def documents(sentences: Sequence[str] = SENTENCES) -> list[Document]:
    return [Document(str(number), sentence) for number, sentence in enumerate(sentences)]


def scripted(trainer: Any, prompts: list[list[int]], most: int, stop: list[int], copies: int) -> tuple[Any, None]:
    """Continue each prompt by tokens that depend on its question and its place in the group alone.

    Answers are now and then right, so that rewards differ within a group.
    """
    first = trainer.accelerator.process_index * len(prompts)
    replies = []
    for row, question in enumerate(trainer.questions, first):
        place = question.position
        dice = random.Random(f"{trainer.positions.step}/{place.trunk}/{place.index}/{row % trainer.config.group_size}")
        if copies > 1:  # a thought, which some do not close
            thought = [dice.randrange(97, 123) for _ in range(dice.randrange(most))]
            replies.append(thought + stop if len(thought) < most - 1 else [*thought, 98][:most])
        else:
            truth = question.text.ids[place.index]
            replies.append([truth if dice.random() < 0.4 else dice.randrange(97, 123)])
    return replies, None


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what is measured in seconds and megabytes."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = ("rollout_seconds", "update_seconds", "peak_memory_mb")
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]
