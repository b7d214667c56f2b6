"""The run folder and the states in it: whole files or none, one process at a time."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import NonFiniteError, UserError
from rmt_mini.files import write_whole
from rmt_mini.records import State
from rmt_mini.runs.folder import RunFolder, drop_states, load_state, save_state, whole
from rmt_mini.runs.journal import first_notes
from rmt_mini.stages.midtrain import RMTTrainer
from tests.fakes import make_tiny_policy
from tests.stages.tiny import closing, small, texts_for

NOTES = first_notes("mid-training", RMTConfig())


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_folder_is_made_with_its_parents_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one", NOTES)
    folder.release()
    assert list(folder.path.iterdir()) == []
    (folder.path / ".run.json.4711.unfinished").write_text('{"conf')  # as a kill before the first note leaves it
    (folder.path / ".lock").touch()
    RunFolder(folder.path, NOTES).release()


def test_a_folder_or_file_in_the_way_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, words in ((".", r"is in use; choose another with --out, or delete it$"), ("file", "is in use"),
                         ("file/run", r"cannot be written \(Not a directory\); choose another --out$")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            RunFolder(tmp_path / place, NOTES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


def test_a_disk_that_is_nearly_full_is_reported_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    RunFolder(tmp_path / "fits", NOTES, needed_bytes=5_000_000)
    with pytest.raises(UserError, match=r"has 5 MB free, and the run needs about 900 MB; free some, or choose"):
        RunFolder(tmp_path / "full", NOTES, needed_bytes=900_000_000)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    write_whole(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, broken, full)
    for name in ("a.json", "b.json"):
        with pytest.raises(OSError, match="No space"):
            write_whole(tmp_path / name, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": "old"}


def test_a_checkpoint_opens_with_transformers_and_as_a_policy(tmp_path: Path) -> None:
    policy = make_tiny_policy()
    folder = RunFolder(tmp_path / "run", NOTES)
    folder.save_checkpoint(policy)
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "checkpoint"]
    model = AutoModelForCausalLM.from_pretrained(folder.path / "checkpoint", use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder.path / "checkpoint")
    ids = torch.tensor([tokenizer("The cat sat.")["input_ids"]])
    assert torch.equal(model(input_ids=ids).logits, policy.model(input_ids=ids).logits)
    assert (model.config.use_cache, policy.model.config.use_cache) == (True, False)
    assert model.config._attn_implementation != "rmt_tree"
    again = load_policy(str(folder.path / "checkpoint"), "cpu", "float32")
    assert torch.equal(again.head.weight, policy.head.weight)


def test_a_kill_between_two_renames_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, folder = make_tiny_policy(), RunFolder(tmp_path / "run", NOTES)
    folder.save_checkpoint(policy)
    before = (folder.path / "checkpoint" / "model.safetensors").read_bytes()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == ".checkpoint.new":
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(SystemExit):
            folder.save_checkpoint(policy)
    assert not (folder.path / "checkpoint").exists()
    users = [".draft.2", ".run.json.2026-11-28"]
    for name in (".run.json.123.unfinished", *users):
        (folder.path / name).write_text("half, or a user's")
    folder.release()
    again = RunFolder(tmp_path / "run", NOTES, resume=True)
    assert (again.path / "checkpoint" / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in again.path.iterdir()) == sorted([".lock", "checkpoint", *users])


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", str(tmp_path), "../" + tmp_path.name):
        with pytest.raises(UserError, match="the current folder cannot be replaced"), whole(Path(name)):
            pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", NOTES)
    with pytest.raises(UserError, match=r"run folder .* is in use by another process; wait for it, or choose"):
        RunFolder(tmp_path / "run", NOTES, resume=True)
    (folder.path / "run.json").write_text("{}")
    folder.release()
    RunFolder(tmp_path / "run", NOTES, resume=True).release()
    with pytest.raises(UserError, match="is in use; choose another"):
        RunFolder(tmp_path / "run", NOTES)


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), r"after the last update .*weight is not finite"), (1e30, "hidden state is not")]
)
def test_a_policy_that_has_run_away_is_not_saved(value: float, words: str, tmp_path: Path) -> None:
    policy, folder = make_tiny_policy(), RunFolder(tmp_path / "run", NOTES)
    folder.save_checkpoint(policy)
    before = (folder.path / "checkpoint" / "model.safetensors").read_bytes()
    with torch.no_grad():
        for layer in policy.model.model.layers:
            layer.self_attn.q_proj.weight.fill_(value)  # 1e30 is finite, and its products are not
            layer.self_attn.k_proj.weight.fill_(value)
    with pytest.raises(NonFiniteError, match=words):
        folder.save_checkpoint(policy)
    assert (folder.path / "checkpoint" / "model.safetensors").read_bytes() == before


# States


def a_state(step: int) -> State:
    tensors = {"w": torch.randn(3, 2, generator=torch.Generator().manual_seed(step)), "rng": torch.arange(5).byte()}
    return State(tensors, {"step": step, "sampler": {"counts": [1, 2, 3]}, "lr": 1e-5})


def loaded(folder: Path) -> State:
    state = load_state(folder)
    assert state is not None
    return state


def test_a_state_comes_back(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    for step in (3, 12, 12):  # the same step may be saved again
        save_state(tmp_path, a_state(step))
        back = loaded(tmp_path)
        assert back.plain == a_state(step).plain
        assert all(torch.equal(back.tensors[name], tensor) for name, tensor in a_state(step).tensors.items())
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000012"]  # the older one is gone
    drop_states(tmp_path)
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_damaged_state_is_reported(tmp_path: Path, name: str) -> None:
    save_state(tmp_path, a_state(1))
    path = tmp_path / "state" / "step-000001" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"the saved state .*step-000001' is damaged \(.*start the run again"):
        load_state(tmp_path)


@pytest.mark.parametrize(("dtype", "kl_weight"), [(torch.float32, 0.1), (torch.bfloat16, 0.0)])
def test_a_trainer_continues_as_another_would_have(tmp_path: Path, dtype: torch.dtype, kl_weight: float) -> None:
    config = small(steps=4, kl_weight=kl_weight)

    def trainer() -> RMTTrainer:
        policy = closing(dtype)
        return RMTTrainer(config, policy, texts_for(policy, config))

    whole, first, second = trainer(), trainer(), trainer()
    history = [metrics.reward for metrics in whole.fit()]

    def stop(_: Any) -> None:
        if first.next_step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.fit(stop)
    save_state(tmp_path, first.state())
    with torch.no_grad():
        for parameter in second.policy.model.parameters():  # nothing of the model that resumes matters
            parameter.fill_(0.1)
    second.load_state(loaded(tmp_path))
    assert [metrics.reward for metrics in second.fit()] == history[2:]
    for one, other in zip(whole.policy.model.parameters(), second.policy.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for name, tensor in whole.state().tensors.items():
        assert torch.equal(tensor, second.state().tensors[name]), name


def test_lines_hold_text_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", NOTES)
    folder.append("rollouts.jsonl", [{"thought": "é\n"}, {"thought": "二"}])
    folder.append("rollouts.jsonl", [{"thought": "\u2028"}])
    lines = (folder.path / "rollouts.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["thought"] for line in lines] == ["é\n", "二", "\u2028"]
