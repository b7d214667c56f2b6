"""A run that is resumed or measured again reads the tokens that it started with, or says in one line that it cannot."""

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers.utils.chat_template_utils as templates
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from rmt_mini.config import RMTConfig
from rmt_mini.files import Evaluation
from rmt_mini.runs.run import evaluate_checkpoint, resume, run
from tests.fakes import byte_tokenizer
from tests.outcomes import either
from tests.runs.test_resume import left
from tests.runs.test_run import interrupted, settings

DATED = "<|user|>{{ strftime_now('%d %B %Y') }}: {{ messages[0].content }}<|end|>{{ strftime_now('%A') }}<|assistant|>"


def set_date(patch: pytest.MonkeyPatch, *date: int) -> None:
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime(*date)  # type: ignore[arg-type]

    patch.setattr(templates, "datetime", Fixed)


def dated(folder: Path, **changes: Any) -> RMTConfig:
    """Settings of a run whose model has a template with today's date."""
    small = {"steps": 2, "group_size": 2, "positions_per_document": 2, "evaluation_positions": 6}
    config = settings(folder, answer_format="chat", warmup_steps=1, preflight_positions=3, **small | changes)
    byte_tokenizer(template=DATED).save_pretrained(folder / "model")
    return config


@pytest.fixture(scope="module")
def in_may(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        set_date(patch, 2026, 5, 2)
        return run(dated(tmp_path_factory.mktemp("may")), progress=False).folder


def test_a_template_with_the_date_may_be_measured_on_another_day(in_may: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_date(monkeypatch, 2026, 12, 1)
    assert evaluate_checkpoint(in_may) == Evaluation.read(in_may).after


def test_a_template_with_the_date_may_be_resumed_on_another_day(
    in_may: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_date(monkeypatch, 2026, 5, 2)
    path = interrupted(dated(tmp_path, state_seconds=0.0))
    set_date(monkeypatch, 2026, 12, 1)
    resume(path, progress=False)
    assert left(path) == left(in_may)


def merge(folder: Path) -> None:
    """Make "th" one token, in place of <|user|>'s neighbour, as another version of a tokenizer might."""
    file = folder / "tokenizer.json"
    table = json.loads(file.read_text())
    table["model"]["merges"] = [["t", "h"]]
    table["model"]["vocab"] |= {"th": 255}
    table["model"]["vocab"] = {word: n for word, n in table["model"]["vocab"].items() if n != 255 or word == "th"}
    file.write_text(json.dumps(table))
    assert Tokenizer.from_file(str(file)).encode("the").tokens == ["th", "e"]


def test_another_tokenizer_is_noticed_by_evaluate(in_may: Path, tmp_path: Path) -> None:
    shutil.copytree(in_may, tmp_path / "run")
    merge(tmp_path / "run" / "checkpoint")
    _, message = either(lambda: evaluate_checkpoint(tmp_path / "run"))
    assert f"the tokenizer of '{tmp_path / 'run' / 'checkpoint'}' has changed since the run" in (message or "")


def test_another_tokenizer_is_noticed_by_resume(tmp_path: Path) -> None:
    path = interrupted(settings(tmp_path, warmup_steps=0))
    merge(tmp_path / "model")
    _, message = either(lambda: resume(path, progress=False))
    assert "token_digest was" in (message or "")


def test_what_makes_no_difference_to_the_tokens_is_no_other_tokenizer(in_may: Path, tmp_path: Path) -> None:
    shutil.copytree(in_may, tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "checkpoint")
    tokenizer.bos_token = tokenizer.pad_token = "<|end|>"
    tokenizer.save_pretrained(tmp_path / "run" / "checkpoint")
    found, message = either(lambda: evaluate_checkpoint(tmp_path / "run"))
    assert message is None
    assert found.think.average.n > 0
