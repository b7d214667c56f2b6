"""States on disk: what comes back is what went in, to the bit; half a state is no state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rmt_mini.errors import UserError
from rmt_mini.stages import state as room
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.state import State, drop_states, load_state, save_state
from tests.stages.tiny import closing, small, texts_for


def a_state(step: int) -> State:
    tensors = {"w": torch.randn(3, 2, generator=torch.Generator().manual_seed(step)), "rng": torch.arange(5).byte()}
    return State(tensors, {"step": step, "sampler": {"counts": [1, 2, 3]}, "lr": 1e-5})


def test_a_state_comes_back(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    for step in (3, 12):
        save_state(tmp_path, a_state(step))
        back = load_state(tmp_path)
        assert back is not None
        assert back.plain == a_state(step).plain
        assert all(torch.equal(back.tensors[name], tensor) for name, tensor in a_state(step).tensors.items())
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000012"]  # the older one is gone
    save_state(tmp_path, a_state(12))  # the same step once more
    drop_states(tmp_path)
    assert load_state(tmp_path) is None


@pytest.mark.parametrize("where", ["save_file", "sync"])
def test_a_write_that_fails_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    save_state(tmp_path, a_state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, where, full)
    with pytest.raises(OSError, match="No space"):
        save_state(tmp_path, a_state(2))
    back = load_state(tmp_path)
    assert back is not None
    assert back.plain["step"] == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000001"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_damaged_state_is_told(tmp_path: Path, name: str) -> None:
    save_state(tmp_path, a_state(1))
    path = tmp_path / "state" / "step-000001" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"the saved state .*step-000001' is damaged \(.*begin the run again"):
        load_state(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
def test_a_trainer_goes_on_as_another_would_have(tmp_path: Path, dtype: torch.dtype, kl_weight: float) -> None:
    config = small(steps=4, kl_weight=kl_weight)

    def trainer() -> RMTTrainer:
        policy = closing(dtype)
        return RMTTrainer(config, policy, texts_for(policy, config))

    whole, first, second = trainer(), trainer(), trainer()
    history = [metrics.reward for metrics in whole.fit()]

    class Enough(Exception):
        pass

    def stop(_: object) -> None:
        if first.next_step == 2:
            raise Enough

    with pytest.raises(Enough):
        first.fit(stop)
    save_state(tmp_path, first.state())
    with torch.no_grad():
        for parameter in second.policy.model.parameters():  # nothing of the model that resumes matters
            parameter.fill_(0.1)
    saved = load_state(tmp_path)
    assert saved is not None
    second.load_state(saved)
    assert [metrics.reward for metrics in second.fit()] == history[2:]
    for one, other in zip(whole.policy.model.parameters(), second.policy.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert second.sampler.counts == whole.sampler.counts
    for name, tensor in whole.state().tensors.items():
        assert torch.equal(tensor, second.state().tensors[name]), name
