"""An exported folder is the model, and its card is true, safe to publish, and its code works."""

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi

from rmt_mini.engine.prompt import Continuation
from rmt_mini.errors import UserError
from rmt_mini.files import Evaluation, Notes
from rmt_mini.runs.export import card, export
from rmt_mini.runs.run import run
from tests.runs.test_run import settings

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(settings(folder, steps=2, length_weight=0.45), progress=False)
    return folder / "run"


def header_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])  # type: ignore[index]
    return found


def test_the_folder_is_the_checkpoint(done: Path, tmp_path: Path) -> None:
    assert export(done, tmp_path / "model") == str(tmp_path / "model")
    trained, exported = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (done / "checkpoint", tmp_path / "model")
    )
    assert exported.pop("README.md")
    assert exported == trained


def test_the_card_says_what_was_done_and_no_path(done: Path, tmp_path: Path) -> None:
    text = card(done, "tales")
    header = header_of(text)
    assert header["library_name"] == "transformers"
    assert header["license"] == "other"
    assert "base_model" not in header  # a folder is no name on the Hub
    assert "arxiv:2509.24375" in header["tags"]
    for path in (str(done), str(done.parent), "tales.txt"):
        assert path not in text
    assert "The cat sat" not in text  # a text of one's own
    after = Evaluation.read(done).after
    assert after is not None
    cell = after.think.average
    assert f"{100 * cell.accuracy:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]" in text  # type: ignore[operator]
    assert "| `length_weight` | 0.45 | 0.2 |" in text
    assert "| `budget_decay`" not in text  # as usual
    assert "The licence of the base model is not known" in text
    assert "@article{tian2025reinforcement" in text
    assert "it learned by reinforcement to think before it predicts" in text
    assert "a token budget from 6 to 2, tiers of entropy drawn with probabilities 0.6, 0.3, 0.1 at first" in text


def test_the_card_of_a_control_says_what_it_was_trained_by(tmp_path: Path) -> None:
    run(settings(tmp_path, steps=1, use_rl=False, warmup_steps=0, evaluation_budget=8), progress=False)
    text = card(tmp_path / "run", "tales")
    assert "a control of it, whose settings are below" in text
    assert "next-token prediction alone. Seed" in text
    assert "learned by reinforcement" not in text
    assert "budget from" not in text


@pytest.mark.parametrize(
    ("changes", "licence", "base", "said"),
    [
        ({"model": "smollm2-135m", "corpus": "champ"}, "apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct", "CHAMP"),
        ({"model": "abacus-2", "corpus": "abacus"}, "mit", None, "dense with calculations"),
        (
            {"model": "Qwen/Qwen3-0.6B", "corpus": "hf:some/text"},
            "other",
            "Qwen/Qwen3-0.6B",
            "hf&#58;some/text|hf:some/text",
        ),
        ({"corpus": "hf:some/text:config@test"}, "other", None, "some/text(:|&#58;)config"),
        ({"corpus": "hf:/home/someone/saved@train"}, "other", None, "a text of the author"),
    ],
)
def test_licence_and_base_are_those_of_what_it_was_made_of(
    changes: dict[str, str], licence: str, base: str | None, said: str, done: Path, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "run")
    notes = Notes.read(tmp_path / "run")
    notes.config = notes.settings.replace(**changes)
    notes.write(tmp_path / "run")
    text = card(tmp_path / "run", "model")
    header = header_of(text)
    assert (header["license"], header.get("base_model")) == (licence, base)
    assert header.get("datasets") == (["some/text"] if "hf:some" in changes["corpus"] else None)
    assert "/home/someone" not in text
    assert re.search(said, text)


def test_the_code_of_the_card_asks_as_training_did(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(done, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    assert "->" in capsys.readouterr().out
    form = Continuation(names["tokenizer"])
    trunk, _ = form.trunk(names["text"])
    assert names["trunk"] == trunk
    assert names["opening"] == form.opening(2)  # B_T
    assert names["close"] == form.close
    assert names["cue"] == form.cue(trunk, len(trunk))
    assert len(names["answer"]) == 1
    assert len(names["thought"]) <= 4


def test_what_is_not_done_or_not_free_is_refused(done: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="is in use"):
        export(done, tmp_path / "taken")
    shutil.copytree(done, tmp_path / "run")
    notes = Notes.read(tmp_path / "run")
    notes.status = "interrupted"
    notes.write(tmp_path / "run")
    with pytest.raises(UserError, match="is a mid-training run that is interrupted; give"):
        export(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_push_creates_a_private_repository_and_uploads_the_folder(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    class Url(str):
        repo_id = "someone/model"

    def create(self: HfApi, repository: str, **more: Any) -> Url:
        asked.append((repository, more))
        return Url("https://huggingface.co/someone/model")

    def upload(self: HfApi, **more: Any) -> None:
        asked.append((more["repo_id"], sorted(path.name for path in Path(more["folder_path"]).iterdir())))

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert export(done, tmp_path / "model", "model") == "https://huggingface.co/someone/model"
    assert asked[0] == ("model", {"private": True, "exist_ok": True})
    assert asked[1][0] == "someone/model"
    assert {"README.md", "model.safetensors", "config.json"} <= {*asked[1][1]}


def test_a_push_that_fails_is_one_line_and_the_folder_stays(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise OSError("no route to host")

    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(UserError, match=r"push to 'a/b' failed \(.*\); the folder .* is complete"):
        export(done, tmp_path / "model", "a/b")
    assert json.loads((tmp_path / "model" / "config.json").read_text())
    assert asked  # the Hub's own client was on its way
