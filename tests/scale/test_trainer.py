"""The layer on TRL in one process: sampling, adapters, checkpoints."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rmt_mini.errors import NonFiniteError, UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.scale.sampling import cut_thought, generate_by_trl, think_and_answer
from rmt_mini.scale.train import lora
from rmt_mini.scale.trainer import RMTGRPOTrainer, State, latest_checkpoint
from tests.fakes import byte_tokenizer, tiny_model
from tests.scale.tiny import CPU, documents, metrics_of, settings_of_run


def make(out: Path, peft_config: Any = None, **changes: Any) -> RMTGRPOTrainer:
    model = tiny_model("qwen3")
    with torch.no_grad():
        model.get_output_embeddings().weight[ord("<")] *= 3  # now and then a thought closes
    return RMTGRPOTrainer(settings_of_run(**changes), CPU, model, byte_tokenizer(), documents(), str(out), peft_config)


def test_rollouts_are_branches_of_the_answer_format(tmp_path: Path) -> None:
    trainer = make(tmp_path, steps=1)
    seen: list[Any] = []
    before = trainer._roll_out
    trainer._roll_out = lambda: seen.append(before()) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    trainer.train()
    (rows,), form = seen, trainer.form
    for n, question in enumerate(trainer.questions):
        at, ids = question.position.index, question.text.ids
        assert rows["prompt_ids"][n] == [*ids[:at], *form.opening(question.budget)]
        completion, length = rows["completion_ids"][n], rows["thought_length"][n]
        assert completion[length : length + len(form.close)] == form.close
        assert length <= thought_cap(question.budget)
        assert rows["closed"][n] == (length < thought_cap(question.budget))
        assert completion[-1:] == rows["answer"][n]
        written = len(form.close) + len(form.cue(ids, at)) - rows["closed"][n]
        assert rows["env_mask"][n] == [1] * (length + rows["closed"][n]) + [0] * written + [1]
    assert {*rows["closed"]} == {0, 1}  # both kinds of closing were there
    groups = [rows["completion_ids"][n : n + 4] for n in range(0, 16, 4)]
    assert all(len({tuple(one) for one in group}) > 1 for group in groups)


def test_adapters_alone_are_trained_and_resumed(tmp_path: Path) -> None:
    """LoRA with KL to the model without adapters, whose reference TRL gets by switching them off."""
    changes = {"save_every": 1, "kl_weight": 0.1}
    whole = make(tmp_path, lora(4), **changes)
    before = {name: tensor.clone() for name, tensor in whole.model.named_parameters()}
    whole.train()
    moved = {name for name, tensor in whole.model.named_parameters() if not tensor.equal(before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert (tmp_path / "checkpoint-3/adapter_model.safetensors").exists()
    again, first = make(tmp_path, lora(4), **changes), metrics_of(tmp_path)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert metrics_of(tmp_path) == first
    for name, tensor in again.model.named_parameters():
        assert tensor.equal(dict(whole.model.named_parameters())[name]), name


def test_checkpoint_without_our_state_is_passed_over(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step, complete in ((2, True), (10, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / State.NAME).write_text("{}")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    with pytest.raises(UserError, match=r"checkpoint-10/rmt_state.json' is damaged"):
        State.read(tmp_path / "checkpoint-10")


def test_vllm_is_asked_twice_with_its_own_lengths_and_stops() -> None:
    """By TRL's interface alone: no vLLM runs here. Log-probabilities are where the model chose, None elsewhere."""
    engine = SimpleNamespace(max_completion_length=99, generation_kwargs={"seed": 1})
    asked: list[dict[str, Any]] = []
    form: Any = SimpleNamespace(
        close=[60, 47], answer_limit=2, tokenizer=SimpleNamespace(eos_token_id=9),
        opening=lambda budget: [40, budget], cue=lambda ids, at: [46], finished=lambda answer: len(answer) == 1,
    )  # fmt: skip
    replies = iter([[[5, 60], [5, 6, 7, 8]], [[1, 2], [3, 4]]])

    def single_turn(prompts: Any, images: None, fields: Any, copies: int) -> Any:
        asked.append({"most": engine.max_completion_length, "copies": copies, **engine.generation_kwargs})
        ids = next(replies)
        return ids, [[-float(token) for token in row] for row in ids]

    question: Any = SimpleNamespace(text=SimpleNamespace(ids=(1, 2, 3)), position=SimpleNamespace(index=2), budget=2)
    trainer = SimpleNamespace(
        use_vllm=True, vllm_generation=engine, eos_token_ids=[9], _generate_single_turn=single_turn,
        plan=SimpleNamespace(questions=[question]),
    )  # fmt: skip
    first, second = think_and_answer(trainer, generate_by_trl, form, settings_of_run(group_size=2), [question] * 2)
    assert asked == [
        {"most": 4, "copies": 2, "stop_token_ids": [60], "ignore_eos": True, "seed": 1},
        {"most": 2, "copies": 1, "stop_token_ids": [9], "ignore_eos": True, "seed": 1},
    ]
    assert first.completion_ids == [5, 60, 47, 46, 1]
    assert first.env_mask == [1, 1, 0, 0, 1]
    assert first.logprobs == [-5.0, -60.0, None, None, -1.0]
    assert second.completion_ids == [5, 6, 7, 8, 60, 47, 46, 3]
    assert second.env_mask == [1, 1, 1, 1, 0, 0, 0, 1]
    assert second.logprobs == [-5.0, -6.0, -7.0, -8.0, None, None, None, -3.0]
    assert cut_thought([5, 6, 9], close=9, cap=4) == ([5, 6], True)
    assert cut_thought([5, 6, 7, 8, 9], close=9, cap=4) == ([5, 6, 7, 8], False)
    with pytest.raises(RuntimeError, match="after 2 of 4 tokens without the closing token 60"):
        cut_thought([5, 6], close=60, cap=4)


@pytest.mark.parametrize(("place", "name"), enumerate(["rl_loss", "ntp_loss"]))
def test_a_loss_that_is_not_finite_on_any_process_stops_this_one(
    place: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, steps=1)
    reduce = trainer.accelerator.reduce
    before = copy.deepcopy(trainer.model.state_dict())

    def spoilt(value: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        found = reduce(value, *given, **options)
        if found.shape == (2,):  # both losses, this process's finite, another's not
            assert bool(value.isfinite().all())
            found[place] = torch.nan
        return found

    monkeypatch.setattr(trainer.accelerator, "reduce", spoilt)
    with pytest.raises(NonFiniteError, match=f"step 0: {name} is not finite; the last checkpoint is whole"):
        trainer.train()
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
