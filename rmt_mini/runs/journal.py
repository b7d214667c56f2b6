"""What a run says about itself: run.json, kept up to date from its first moment to its last, and its rollouts."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.engine.text import Text
from rmt_mini.errors import Stopped
from rmt_mini.records import Answer, Judged, Position, StepMetrics
from rmt_mini.runs.folder import RunFolder, as_dict
from rmt_mini.stages.midtrain import StepResult

CONTEXT_CHARACTERS = 60
DIGESTS = ("corpus_digest", "token_digest", "model_digest")
PACKAGES = ("rmt-mini", "torch", "transformers", "tokenizers", "numpy", "scipy", "champ-dataset")


class Journal:
    """Keeps run.json.

    Args:
        folder: of the run.
        config: every setting, as plain values; its "seed" is repeated at the top.
        earlier: the notes of a run that is taken up again; they are kept, but for settings that it changes.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._running: dict[str, float] = {}  # stage -> since when its seconds are not yet noted
        if earlier is not None:
            kept = {name: value for name, value in earlier.items() if name not in ("end", "error")}
            self.notes: dict[str, Any] = kept | {
                "config": dict(config),
                "resumed": [*kept.get("resumed", []), _now()],
            }
            return
        self.notes = {
            "config": dict(config),
            "seed": config["seed"],
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": versions(),
            "machine": machine(),
            "start": _now(),
            "seconds": {},
        }

    def note(self, **more: Any) -> None:
        """Add to the notes and write them; the stages under way have their seconds so far in them."""
        self._count_seconds()
        self.notes |= more
        self.folder.write_json("run.json", self.notes)

    def step(self, policy: Policy, result: StepResult, count: int) -> None:
        """Write a step's metrics, and ``count`` of its rollouts."""
        step, logged = result.metrics.step, evenly(result.judged, count)
        self.folder.append("metrics.jsonl", [as_dict(result.metrics)])
        self.folder.append("rollouts.jsonl", [rollout_line(policy, step, result.texts, one) for one in logged])

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the block takes to ``seconds``, under the stage's name, however it ends."""
        self._running[stage] = time.perf_counter()
        try:
            yield
        finally:
            self._count_seconds()
            del self._running[stage]
        self.note()  # a process that is killed later loses none of it

    def _count_seconds(self) -> None:
        now, seconds = time.perf_counter(), self.notes["seconds"]
        for stage, since in self._running.items():
            seconds[stage] = round(seconds.get(stage, 0.0) + now - since, 3)
            self._running[stage] = now

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Note how the block ends: done, interrupted or failed."""
        self.note(status="running")
        try:
            yield
        except (KeyboardInterrupt, Stopped):
            self.note(status="interrupted", end=_now())
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # what ended the block may keep this from being written, too
                self.note(status="failed", end=_now(), error=f"{type(error).__name__}: {error}")
            raise


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` items spread evenly, so that the log shows many positions rather than one group."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def rollout_line(policy: Policy, step: int, texts: Sequence[Text], judged: Judged | Answer) -> dict[str, Any]:
    """Lay out a rollout for rollouts.jsonl, as text that a person can read."""
    decode = policy.tokenizer.decode
    rollout = judged.rollout
    assert rollout is not None  # only answers read back from a file have lost it
    position = judged.position if isinstance(judged, Answer) else rollout.position
    text = texts[position.trunk]
    reward = (
        {"length_reward": judged.length_reward, "reward": judged.reward, "advantage": judged.advantage}
        if isinstance(judged, Judged)
        else {}
    )
    return {
        "step": step,
        "document": text.id,
        "position": position.index,
        "tier": position.tier,
        "entropy": position.entropy,
        "context": decode(list(text.ids[: position.index]))[-CONTEXT_CHARACTERS:],
        "budget": rollout.budget,
        "thought": decode(list(rollout.thought)),
        "closed": rollout.closed,
        "answer": decode(list(rollout.answer)),
        "truth": decode([text.ids[position.index]]),
        "match": judged.match,
        **reward,
    }


def answer_line(when: str, texts: Sequence[Text], answer: Answer) -> dict[str, Any]:
    """Lay out an answer for answers.jsonl: what an interval over several runs needs."""
    position = answer.position
    return {
        "when": when,
        "document": texts[position.trunk].id,
        "position": position.index,
        "tier": position.tier,
        "sort": answer.sort,
        "plain": answer.plain,
        "match": answer.match,
        "length": answer.length,
        "closed": answer.closed,
    }


def read_answer(line: Mapping[str, Any], position: Position) -> Answer:
    """Make an answer out of its line of answers.jsonl; its rollout is not there."""
    plain, match, length, closed, sort = (line[key] for key in ("plain", "match", "length", "closed", "sort"))
    return Answer(position, plain, match, length, closed, sort)


def metrics_of(line: Mapping[str, Any]) -> StepMetrics:
    """Make a record out of its line of metrics.jsonl; a run of an older version lacks some counts, which are 0 then."""
    values: dict[str, Any] = {field.name: line.get(field.name, 0) for field in dataclasses.fields(StepMetrics)}
    for name in ("tier_probabilities", "tier_counts", "rl_tokens_by_tier"):
        values[name] = tuple(values[name] or (0, 0, 0))
    return StepMetrics(**values)


def now_done() -> dict[str, str]:
    """Return the notes of a run that is done; a report written before its block ends shows them already."""
    return {"status": "done", "end": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Return what a timing depends on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def model_digest(policy: Policy) -> str:
    """Return a sha256 over the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def token_digest(form: AnswerFormat, texts: Sequence[Text], budget: int) -> str:
    """Return a sha256 over what a model reads: the texts as tokens, and what is written around them.

    It differs wherever another tokenizer, another version of it or another chat template makes a difference.

    Args:
        form: the answer format.
        texts: of the run.
        budget: that an opening states, tokens.
    """
    frame = [form.opening(budget), form.close, form.cue([0] * 2 * TAIL_TOKENS, 2 * TAIL_TOKENS)]
    return hashlib.sha256(json.dumps([frame, [(text.first, text.ids) for text in texts]]).encode()).hexdigest()
