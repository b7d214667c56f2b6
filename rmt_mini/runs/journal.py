"""What a run says about itself: run.json, lines of what it sampled, and digests of what it ran with."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.errors import Stopped, logger
from rmt_mini.files import KEPT, AnswerLine, Kind, Notes, RolloutLine, Time
from rmt_mini.records import Answer, Judged, Text
from rmt_mini.runs.folder import RunFolder
from rmt_mini.stages.evaluate import evenly
from rmt_mini.stages.midtrain import StepResult

CONTEXT_CHARACTERS = 60
CROWDED = 1.5  # a step on the CPU this many times as long as its processor time has waited for others
PACKAGES = ("rmt-mini", "torch", "transformers", "tokenizers", "numpy", "scipy", "champ-dataset")


class Journal:
    """Keeps run.json up to date; its notes are ``first_notes`` of a run that starts, or those of one resumed."""

    def __init__(self, folder: RunFolder, notes: Notes) -> None:
        self.folder, self.notes = folder, notes
        self._running: dict[str, float] = {}  # stage -> since when its seconds are not yet noted
        self._clocks: tuple[float, float] | None = None  # seconds by the wall and of the processor, at the last step
        self._warned = False

    def note(self, **more: Any) -> None:
        """Add to the notes and write them; the stages under way have their seconds so far in them."""
        self._count_seconds()
        for name, value in more.items():
            setattr(self.notes, name, value)
        self.notes.write(self.folder.path)

    def step(self, policy: Policy, result: StepResult, count: int) -> None:
        """Write a step's metrics, and ``count`` of its rollouts."""
        step, logged = result.metrics.step, evenly(result.judged, count)
        self.folder.append("metrics.jsonl", [result.metrics])
        self.folder.append("rollouts.jsonl", [rollout_line(policy, step, result.texts, one) for one in logged])
        if policy.device.type == "cpu" and not self._warned:
            self._warned = self._waited(step)

    def _waited(self, step: int) -> bool:
        """Whether the time since the step before was spent waiting for a processor; says so."""
        before, self._clocks = self._clocks, (time.perf_counter(), time.process_time())
        if before is None:
            return False
        wall, processor = (new - old for new, old in zip(self._clocks, before, strict=True))
        if wall < max(1.0, CROWDED * processor):
            return False
        took = f"Step {step} took {wall:.0f} s, but only {processor:.0f} s of processor time"
        logger.warning("%s: other programs are computing. Close them, or lower OMP_NUM_THREADS", took)
        return True

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
        moment, seconds = time.perf_counter(), self.notes.seconds
        for stage, since in self._running.items():
            seconds[stage] = round(seconds.get(stage, 0.0) + moment - since, 3)
            self._running[stage] = moment

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Note that the block runs, and if it does not reach its end, whether it was interrupted or failed."""
        self.note(status="running")
        try:
            yield
        except (KeyboardInterrupt, Stopped):
            self.note(status="interrupted", end=now())
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # what ended the block may keep this from being written, too
                self.note(status="failed", end=now(), error=f"{type(error).__name__}: {error}")
            raise


def first_notes(kind: Kind, config: RMTConfig | PretrainConfig, **more: Any) -> Notes:
    """Return the notes that a run starts with; what is None is left out."""
    return Notes(
        kind=kind,
        config=config,
        seed=config.seed,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        versions=versions(),
        machine=machine(),
        start=now(),
        seconds={},
        **{name: value for name, value in more.items() if value is not None},
    )


def rollout_line(policy: Policy, step: int, texts: Sequence[Text], judged: Judged | Answer) -> RolloutLine:
    """Lay out a rollout for rollouts.jsonl or samples.json, as text that a person can read."""
    decode, rollout = policy.tokenizer.decode, judged.rollout
    assert rollout is not None  # only answers read back from a file have lost it
    position, text = rollout.position, texts[rollout.position.trunk]
    rewards = ("length_reward", "reward", "advantage") if isinstance(judged, Judged) else ()
    return RolloutLine(
        step=step,
        document=text.id,
        position=position.index,
        tier=position.tier,
        entropy=position.entropy,
        context=decode(list(text.ids[: position.index]))[-CONTEXT_CHARACTERS:],
        budget=rollout.budget,
        thought=decode(list(rollout.thought)),
        closed=rollout.closed,
        answer=decode(list(rollout.answer)),
        truth=decode([text.ids[position.index]]),
        match=judged.match,
        **{name: getattr(judged, name) for name in rewards},
    )


def answer_line(when: Time, texts: Sequence[Text], answer: Answer) -> AnswerLine:
    """Lay out an answer for answers.jsonl: what an interval over several runs needs."""
    position = answer.position
    same = {name: getattr(answer, name) for name in KEPT}
    return AnswerLine(when=when, document=texts[position.trunk].id, position=position.index, tier=position.tier, **same)


def now() -> str:
    """Return the time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(*more: str) -> dict[str, str]:
    """Return the versions that a result depends on, those of ``more`` packages too."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str | int | None]:
    """Return what a timing depends on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def model_digest(policy: Policy) -> str:
    """Return a sha256 over the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def token_digest(form: AnswerFormat, texts: Sequence[Text], budget: int) -> str:
    """Return a sha256 over what a model reads: texts as tokens, and delimiters of a branch under ``budget``."""
    frame = [form.opening(budget), form.close, form.cue([0] * 2 * TAIL_TOKENS, 2 * TAIL_TOKENS)]
    return hashlib.sha256(json.dumps([frame, [(text.first, text.ids) for text in texts]]).encode()).hexdigest()
