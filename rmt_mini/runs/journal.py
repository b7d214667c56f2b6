"""What a run says about itself: its first notes, lines of what it sampled, and digests of what it ran with."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.files import KEPT, AnswerLine, Kind, Notes, RolloutLine, Time
from rmt_mini.records import Answer, Judged, Text

CONTEXT_CHARACTERS = 60
PACKAGES = ("rmt-mini", "torch", "transformers", "tokenizers", "numpy", "scipy", "champ-dataset")


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
