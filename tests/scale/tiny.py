"""A tiny random model of Qwen3's shape, its texts, and scripted rollouts that do not depend on how work is spread."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.records import Document
from rmt_mini.scale.settings import ScaleSettings
from tests.fakes import byte_tokenizer, tiny_model
from tests.stages.tiny import SENTENCES, small

CPU = ScaleSettings(micro_batch=4, checkpointing=False, cpu=True)


def settings_of_run(**changes: Any) -> RMTConfig:
    """Two documents, four positions, four rollouts each: 16 rows a step."""
    fields: dict[str, Any] = {"positions_per_document": 2, "documents_per_step": 2, "warmup_steps": 0, "model": "tiny"}
    return small(**fields | changes)


def documents(sentences: Sequence[str] = SENTENCES) -> list[Document]:
    return [Document(str(number), sentence) for number, sentence in enumerate(sentences)]


def model_and_tokenizer(seed: int = 0) -> tuple[Any, Any]:
    return tiny_model("qwen3", seed=seed), byte_tokenizer()


def save_model(folder: Path) -> Path:
    model, tokenizer = model_and_tokenizer()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def scripted(trainer: Any, prompts: list[list[int]], most: int, stop: list[int], copies: int) -> tuple[Any, None]:
    """Continue each prompt by tokens that hang on its question and its place in the group alone.

    Answers are now and then right, so that rewards differ within a group.
    """
    size = trainer.config.group_size
    first = trainer.accelerator.process_index * len(prompts)
    replies = []
    for row, question in enumerate(trainer.questions):
        place = question.position
        dice = random.Random(f"{trainer.positions.step}/{place.trunk}/{place.index}/{(first + row) % size}")
        if copies > 1:  # a thought
            length = dice.randrange(most)
            replies.append([dice.randrange(97, 123) for _ in range(length)] + (stop if length < most - 1 else [98]))
            replies[-1] += [98] * (most - len(replies[-1]) if replies[-1][-1] != stop[0] else 0)
        else:
            truth = question.text.ids[place.index]
            replies.append([truth if dice.random() < 0.4 else dice.randrange(97, 123)])
    return replies, None


def corpus_of_run(path: Path) -> Path:
    """Write the sentences as a corpus."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES), encoding="utf-8")
    return path


def metrics_of(out: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what is measured in seconds and megabytes."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = ("rollout_seconds", "update_seconds", "peak_memory_mb")
    return [{name: value for name, value in line.items() if name not in measured} for line in lines]
