"""What a machine does to a run: the disk fills up, memory runs out, numbers overflow, clocks and streams misbehave.

Each ends in one line that says what to do, and in nothing lost.
"""

import errno
import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from rmt_mini.engine.model import load_policy
from rmt_mini.errors import NonFiniteError, UserError
from rmt_mini.runs import capacity
from rmt_mini.runs.folder import load_state
from rmt_mini.runs.run import resume, run
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from tests.runs.test_resume import flags as config_flags
from tests.runs.test_resume import left
from tests.runs.test_run import interrupted, lines, read, settings
from tests.stages.tiny import closing, small
from tests.test_cli import outcome

STEPS = 6  # as of ``unbroken``


def flags(folder: Path, **changes: Any) -> list[str]:
    """The same run, as the command line takes it."""
    return config_flags(settings(folder, steps=STEPS, **changes))


def left_by_command(folder: Path) -> dict[str, Any]:
    """As ``left``; the command line's preset has another name."""
    found = left(folder)
    return found | {"findings": found["findings"].replace("preset laptop", "preset custom", 1)}


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line, which must end with exit code 2, one line, and no traceback; return the line."""
    code, out, lines = outcome(arguments, capsys)
    errors = [line for line in lines if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1)
    assert lines[-1] == errors[0]
    assert not [line for line in lines if "Traceback" in line]
    return errors[0]


# A full disk


class FullDisk:
    """A disk that is full at the ``nth`` write to files of one name; half a line reaches the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, nth: int = 1) -> None:
        self.name, self.left = name, nth
        opened = Path.open

        def opening(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
            if set(mode) & set("wax") and self._full(path):
                with opened(path, "ab") as file:
                    file.write(b'{"step": 4, "rew')
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return opened(path, mode, *arguments, **more)

        monkeypatch.setattr(Path, "open", opening)
        for place in ("rmt_mini.runs.folder.save_file", "transformers.modeling_utils.safe_save_file"):
            monkeypatch.setattr(place, self._compiled(place))

    def _full(self, path: object) -> bool:
        self.left -= self.name in str(path)
        return self.left == 0 and self.name in str(path)

    def _compiled(self, place: str) -> Callable[..., None]:
        import safetensors.torch

        def save(tensors: Any, path: Any, **more: Any) -> None:
            if self._full(path):
                raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
            safetensors.torch.save_file(tensors, path, **more)

        return save


WRITES = (
    ("positions.json", 1), ("samples.json", 1), ("answers.jsonl", 1), ("state.json", 1), ("preflight.json", 1),
    ("metrics.jsonl", 2), ("rollouts.jsonl", 3), ("tensors.safetensors", 2), (".checkpoint.new", 1),
    ("metrics.jsonl", 4), ("state.json", 1), (".checkpoint.new", 2), ("samples.json", 1), ("answers.jsonl", 1),
    ("evaluation.json", 1), ("run.json", 2), ("run.json", 3), ("accuracy.png", 1), ("report.md", 1),
)  # fmt: skip


def test_a_full_disk_loses_nothing_wherever_it_strikes(unbroken: Path, tmp_path: Path) -> None:
    config, path = settings(tmp_path, steps=STEPS, save_every=2, state_seconds=0.0), tmp_path / "run"
    advice = rf"^no space left on the disk of '{path}' \(\d+ MB free\); free some, then: rmt-mini resume {path}$"
    step = 0
    for name, nth in WRITES:
        checkpoint = path / "checkpoint" / "model.safetensors"
        before = checkpoint.read_bytes() if checkpoint.exists() else None
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, name, nth)
            with pytest.raises(UserError, match=advice):
                resume(path, progress=False) if (path / "run.json").exists() else run(config, progress=False)
            assert disk.left <= 0, name
        state = load_state(path)  # raises where it is damaged
        assert (state.plain["step"] if state else 0) >= step
        step = state.plain["step"] if state else 0
        if before is not None:
            assert load_policy(str(path / "checkpoint"), "cpu").parameters
            assert name != ".checkpoint.new" or checkpoint.read_bytes() == before
        assert read(path, "run.json")["status"] in ("failed", "done", "running")
    resume(path, progress=False)
    assert left(path) == left(unbroken)
    assert not [one for one in path.rglob(".*")]


def test_a_disk_full_before_the_first_note_is_one_line_and_the_folder_stays_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, "run.json")
        line = failed(["run", "laptop", *flags(tmp_path)], capsys)
    assert re.search(r"no space left on the disk of '.*run' \(\d+ MB free\); free some and begin again$", line)
    assert run(settings(tmp_path, steps=1), progress=False).folder == tmp_path / "run"


# Memory


def too_much() -> None:
    torch.empty(2**50)


def too_much_of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB")


def test_out_of_memory_says_what_to_lower_and_the_run_goes_on(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, step = tmp_path / "run", RMTTrainer.step
    greed = {512: too_much, 256: lambda: bytearray(2**62), 128: too_much_of_a_gpu}

    def greedy(self: RMTTrainer, number: int, texts: Any) -> StepResult:
        if number == 3:
            greed.get(self.config.branch_tokens, lambda: None)()
        return step(self, number, texts)

    monkeypatch.setattr(RMTTrainer, "step", greedy)
    monkeypatch.setattr(capacity, "free_memory", lambda gpu=False: (1_230_000_000, 8_000_000_000))
    command = ["run", "laptop", *flags(tmp_path, state_seconds=0.0)]
    for tokens in (512, 256, 128):
        assert failed(command, capsys) == (
            "error: out of memory; the run needs about 0.7 GB (rmt-mini plan); 1.2 GB of 8.0 GB are free now; lower "
            f"--branch-tokens ({tokens}), --document-tokens (48), --documents-per-step (2), --group-size (4), or close "
            f"other programs; to go on: rmt-mini resume {path} --branch-tokens {tokens // 2}"
        )
        command = ["resume", str(path), "--branch-tokens", str(tokens // 2)]
    assert outcome(command, capsys)[0] == 0
    metrics, whole = left(path)["metrics"], left(unbroken)["metrics"]
    assert [line["step"] for line in metrics] == list(range(STEPS))
    assert metrics[:3] == whole[:3]  # made with 512 tokens
    assert metrics[3]["ntp_loss"] == pytest.approx(whole[3]["ntp_loss"], rel=1e-4)
    assert read(path, "run.json")["config"]["branch_tokens"] == 64


def test_memory_that_will_hardly_do_is_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path, steps=1, warmup_steps=0, use_rl=False)
    monkeypatch.setattr(capacity, "resident_memory", lambda: 50_000_000)
    monkeypatch.setattr(capacity, "free_memory", lambda gpu=False: (670_000_000, 8_000_000_000))
    capacity.warn_of_little_memory(config, closing())
    assert caplog.text == ""
    monkeypatch.setattr(capacity, "free_memory", lambda gpu=False: (640_000_000, 8_000_000_000))
    run(config, progress=False)
    assert caplog.text.count("This run needs about 0.7 GB, and 0.6 GB are free; if it is killed: rmt-mini resume") == 1


def test_what_did_not_fit_is_let_go(tmp_path: Path) -> None:
    """An exception that a notebook keeps must not keep the tensors too."""
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        large = torch.zeros(9)
        held.append(weakref.ref(large))
        raise MemoryError

    with pytest.raises(UserError) as caught, capacity.explained(small(), closing(), tmp_path):
        work()
    assert isinstance(caught.value.__cause__, MemoryError)
    assert held[0]() is None


# Numbers that are not finite


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int, value: float = float("nan")) -> None:
    """Make the RL loss of some steps NaN or infinite."""
    loss = RMTTrainer._rl_loss

    def spoilt(self: RMTTrainer, *arguments: Any) -> Any:
        part, sums = loss(self, *arguments)
        return part * (value if self.next_step in steps else 1.0), sums

    monkeypatch.setattr(RMTTrainer, "_rl_loss", spoilt)


def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ein Lauf ü 文"
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, 4)
        line = failed(["run", "laptop", *flags(tmp_path, out=str(path), state_seconds=0.0, save_every=2)], capsys)
    assert line == (
        "error: step 4: the RL loss is not finite; the weights are those of the step before; lower learning_rate "
        f"(0.001), or skip such steps (on_nan): rmt-mini resume '{path}' --on-nan skip"
    )
    notes = read(path, "run.json")
    assert (notes["status"], notes["error"].partition(":")[0]) == ("failed", "NonFiniteError")
    before = load_policy(str(path / "checkpoint"), "cpu")  # of step 3
    saved = load_state(path)
    assert saved is not None
    assert saved.plain["step"] == 4
    for name, parameter in before.model.named_parameters():
        master = saved.tensors[f"master/{name}"]  # float32, where the checkpoint may be bfloat16
        assert torch.equal(parameter, master.to(parameter.dtype))
    resume(path, progress=False)
    assert left_by_command(path) == left(unbroken)


def test_such_steps_may_be_skipped_from_there_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    spoil(monkeypatch, 2, 4)
    failed(["run", "laptop", *flags(tmp_path)], capsys)
    assert outcome(["resume", str(tmp_path / "run"), "--on-nan", "skip"], capsys)[0] == 0
    assert [line["skipped"] for line in lines(tmp_path / "run", "metrics.jsonl")] == [0, 0, 1, 0, 1, 0]
    assert [text for text in caplog.messages if "skipped" in text] == [
        "Step 2: the RL loss is not finite; its update is skipped, and so are others like it",
        "2 updates were skipped; metrics.jsonl says which",
    ]


@pytest.mark.parametrize("after_resume", [False, True])
def test_a_run_that_only_skips_gives_up(after_resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(20))
    config = settings(tmp_path, steps=8, on_nan="skip", state_seconds=0.0)
    words = r"^step 4: the RL loss is not finite, as in the 4 steps before; lower learning_rate \(0.001\)$"
    if after_resume:
        interrupted(config)
    with pytest.raises(NonFiniteError, match=words):
        resume(tmp_path / "run", progress=False) if after_resume else run(config, progress=False)


def test_weights_that_run_away_are_no_bad_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(["run", "laptop", *flags(tmp_path, learning_rate=1e39, on_nan="skip")], capsys)
    assert line == (
        "error: step 1: the hidden state of a document is not finite; the weights have run away; lower learning_rate "
        "(1e+39) and begin again"
    )
    line = failed(["run", "laptop", *flags(tmp_path, warmup_learning_rate=1e39, out=str(tmp_path / "cold"))], capsys)
    assert re.search(r"cold start, step 1: .* is not finite; lower warmup_learning_rate \(1e\+39\)$", line), line


def test_what_may_change_in_a_run_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(settings(tmp_path))
    with pytest.raises(
        UserError, match="learning_rate cannot change in a run under way, only branch_tokens, on_nan, report_to"
    ):
        resume(tmp_path / "run", changes={"learning_rate": 1e-9}, progress=False)
    path = str(tmp_path / "run")
    assert "branch_tokens is 0; give a whole number" in failed(["resume", path, "--branch-tokens", "0"], capsys)
    assert "on_nan is 'hope'; use one of stop, skip" in failed(["resume", path, "--on-nan", "hope"], capsys)


def test_pre_training_names_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rmt_mini.config import PretrainConfig
    from rmt_mini.runs.pre_and_post import pretrain_run

    sizes = {"hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 2, "documents_per_step": 1}
    config = PretrainConfig(steps=5, learning_rate=1e39, rise=1, out=str(tmp_path / "run"), **sizes)
    with pytest.raises(NonFiniteError, match=r"^step 1: the .* is not finite; lower learning_rate \(1e\+39\)$"):
        pretrain_run(config, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr("rmt_mini.runs.pre_and_post.pretrain", lambda *_: too_much())
        with pytest.raises(UserError, match=r"lower --documents-per-step \(1\), --hidden-size \(16\), --layers \(1\),"):
            pretrain_run(PretrainConfig(steps=5, out=str(tmp_path / "other"), **sizes), progress=False)
    assert not (tmp_path / "other" / ".lock").exists()
