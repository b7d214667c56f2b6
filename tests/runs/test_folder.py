from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rmt_mini
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import NonFiniteError, UserError
from rmt_mini.files import write_whole
from rmt_mini.runs.folder import WHOLE, RunFolder, free_name
from tests.fakes import make_tiny_policy


def test_a_free_name_counts_up(tmp_path: Path) -> None:
    base = tmp_path / "laptop-seed0"
    assert free_name(base) == base
    base.mkdir()
    assert free_name(base) == tmp_path / "laptop-seed0-2"
    (tmp_path / "laptop-seed0-2").write_text("a file counts too")
    assert free_name(base) == tmp_path / "laptop-seed0-3"


def test_a_folder_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.release()
    assert list(folder.path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty")


def test_a_run_killed_before_its_first_note_left_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    (folder.path / ".run.json.4711").write_text('{"conf')
    del folder  # as a kill lets go of the lock, and leaves its file
    (tmp_path / "run" / ".lock").touch()
    RunFolder(tmp_path / "run").write_json("run.json", {})


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is in use; choose another with --out, or delete it$"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is in use"):
        RunFolder(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\); choose another --out$"):
        RunFolder(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_is_nearly_full_is_told_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    RunFolder(tmp_path / "fits", needed_bytes=5_000_000)
    with pytest.raises(UserError, match=r"has 5 MB free, and the run needs about 900 MB; free some, or choose"):
        RunFolder(tmp_path / "full", needed_bytes=900_000_000)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "old")
    write_whole(tmp_path / "a.json", "neü")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "neü"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write_whole(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, broken, full)
    for name in ("a.json", "b.json"):
        with pytest.raises(OSError, match="No space"):
            write_whole(tmp_path / name, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": "old"}


def test_lines_and_json_hold_text_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.append("rollouts.jsonl", [{"thought": "é\n"}, {"thought": "二"}])
    folder.append("rollouts.jsonl", [{"thought": ""}])
    lines = (folder.path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["thought"] for line in lines] == ["é\n", "二", ""]
    folder.write_json("run.json", {"corpus": "Füße"})
    assert "Füße" in (folder.path / "run.json").read_text(encoding="utf-8")


def test_a_checkpoint_opens_with_transformers_and_as_a_policy(tmp_path: Path) -> None:
    policy = make_tiny_policy()
    folder = RunFolder(tmp_path / "run")
    folder.save_checkpoint(policy)
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "checkpoint"]
    model = AutoModelForCausalLM.from_pretrained(folder.path / "checkpoint", use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder.path / "checkpoint")
    ids = torch.tensor([tokenizer("The cat sat.")["input_ids"]])
    assert torch.equal(model(input_ids=ids).logits, policy.model(input_ids=ids).logits)
    assert model.config.use_cache is True
    assert policy.model.config.use_cache is False
    assert model.config._attn_implementation != "rmt_tree"
    again = load_policy(str(folder.path / "checkpoint"), "cpu", "float32")
    assert torch.equal(again.head.weight, policy.head.weight)


@torch.no_grad()
def test_a_checkpoint_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_tiny_policy()
    folder = RunFolder(tmp_path / "run")
    folder.save_checkpoint(policy)
    stray = folder.path / "checkpoint" / "stray.txt"
    stray.write_text("of the old one")
    with torch.no_grad():
        policy.head.weight.fill_(0.5)
    folder.save_checkpoint(policy)
    assert not stray.exists()
    assert float(load_policy(str(folder.path / "checkpoint"), "cpu").head.weight.mean()) == 0.5

    def killed(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(policy.tokenizer, "save_pretrained", killed, raising=False)
    with torch.no_grad():
        policy.head.weight.fill_(0.25)
    with pytest.raises(OSError, match="No space"):
        folder.save_checkpoint(policy)
    assert float(load_policy(str(folder.path / "checkpoint"), "cpu").head.weight.mean()) == 0.5
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "checkpoint"]


def test_a_kill_between_two_renames_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_tiny_policy()
    folder = RunFolder(tmp_path / "run")
    folder.save_checkpoint(policy)
    before = (folder.path / "checkpoint" / "model.safetensors").read_bytes()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == ".checkpoint.new":
            raise SystemExit
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(SystemExit):
        folder.save_checkpoint(policy)
    monkeypatch.undo()
    assert not (folder.path / "checkpoint").exists()
    for name in (".run.json.123", ".rollouts.jsonl.7"):
        (folder.path / name).write_text("half")
    users = [".draft.2", ".notes.2026-11-28", ".run.json.b2"]
    for name in users:
        (folder.path / name).write_text("a user's")
    folder.release()
    again = RunFolder(tmp_path / "run", resume=True)
    assert (again.path / "checkpoint" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in again.path.iterdir()) == sorted([".lock", "checkpoint", *users])


def test_every_file_that_a_run_writes_whole_is_known() -> None:
    package = Path(rmt_mini.__file__).parent
    sources = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    written = set(re.findall(r'folder\.write_(?:json|lines)\("([\w.]+)"', sources))
    assert {"run.json", "answers.jsonl"} < written <= set(WHOLE)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match=r"run folder .* is in use by another process; wait for it, or choose"):
        RunFolder(tmp_path / "run", resume=True)
    folder.write_json("run.json", {})
    folder.release()
    RunFolder(tmp_path / "run", resume=True).release()
    with pytest.raises(UserError, match="is in use; choose another"):
        RunFolder(tmp_path / "run")


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), r"after the last update .*weight is not finite"), (1e30, "hidden state is not")]
)
def test_a_policy_that_has_run_away_is_not_saved(value: float, words: str, tmp_path: Path) -> None:
    policy = make_tiny_policy()
    folder = RunFolder(tmp_path / "run")
    folder.save_checkpoint(policy)
    before = (folder.path / "checkpoint" / "model.safetensors").read_bytes()
    with torch.no_grad():
        for layer in policy.model.model.layers:
            layer.self_attn.q_proj.weight.fill_(value)  # 1e30 is finite, and its products are not
            layer.self_attn.k_proj.weight.fill_(value)
    with pytest.raises(NonFiniteError, match=words):
        folder.save_checkpoint(policy)
    assert (folder.path / "checkpoint" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "checkpoint"]
