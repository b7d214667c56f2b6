"""lm-evaluation-harness on a model before and after, without a network."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from rmt_mini.engine.model import load_policy, locate_model
from rmt_mini.errors import UserError
from rmt_mini.files import Benchmark
from rmt_mini.runs import retention
from rmt_mini.runs.retention import NATS, benchmark
from rmt_mini.worlds.questions import load_questions

installed = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The micro-world's model with its output layer a little changed, as a run's folder would have it."""
    policy = load_policy("micro", "cpu", "float32")
    with torch.no_grad():
        policy.head.weight += 0.05 * torch.randn(policy.head.weight.shape, generator=torch.Generator().manual_seed(0))
    policy.model.save_pretrained(tmp_path / "other")
    policy.tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


@installed
def test_a_local_task_needs_no_network_and_its_numbers_are_the_models(other: Path, no_network: None) -> None:
    found, table = benchmark(str(other), "micro", ["micro"], limit=12)
    metrics = found.tasks["rmt_micro"]
    assert metrics.keys() == {"acc", NATS}
    before, after = by_hand("micro"), by_hand(str(other))
    for measured, values in ((metrics[NATS].before, before), (metrics[NATS].after, after)):
        assert measured.mean == pytest.approx(sum(values) / 12, abs=1e-3)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    change = metrics[NATS].change
    assert change.difference == pytest.approx(sum(differences) / 12, abs=1e-3)
    assert change.low < change.difference < change.high  # type: ignore[operator]
    assert change.n == 12
    assert f"| rmt_micro | {NATS} | {metrics[NATS].before.mean:.3f} |" in table


def by_hand(name: str) -> list[float]:
    """Log-probabilities of the answers, by one forward pass for each question."""
    policy = load_policy(name, "cpu", "float32")
    found = []
    for question in load_questions("micro", 12, retention.SEED):
        asked, whole = (
            policy.tokenizer(text)["input_ids"] for text in (question.text, question.text + question.answer)
        )
        logprobs = policy.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        found.append(sum(float(logprobs[at - 1, whole[at]].detach()) for at in range(len(asked), len(whole))))
    return found


@installed
def test_an_unknown_task_is_one_line(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.tasks._index.TaskIndex.build", staticmethod(lambda *_, **__: {}))  # 14,000 files
    with pytest.raises(UserError, match=r"lm-eval cannot run no_such_task \("):
        benchmark(str(other), "micro", ["no_such_task"], limit=2)


@installed
def test_a_run_folder_names_its_own_base_and_keeps_the_result(tmp_path: Path, other: Path) -> None:
    (tmp_path / "run").mkdir()
    notes = Path(__file__).parents[2] / "data/micro/seed0/run.json"
    (tmp_path / "run" / "run.json").write_bytes(notes.read_bytes())
    other.rename(tmp_path / "run" / "checkpoint")
    benchmark(str(tmp_path / "run"), limit=4)
    found = Benchmark.read(tmp_path / "run")
    assert [*found.tasks] == ["rmt_micro"]  # what fits the model
    assert (found.before, found.after, found.limit) == ("micro", str(tmp_path / "run" / "checkpoint"), 4)
    lines = (tmp_path / "run" / "benchmark" / "rmt_micro.jsonl").read_text().splitlines()
    assert [*json.loads(lines[0])] == ["id", "text", "answer"]


def test_a_model_alone_has_no_before() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        with pytest.raises(UserError, match="lm-eval is not installed: pip install"):
            benchmark(locate_model("micro"))
    else:
        with pytest.raises(UserError, match="is no run folder, so what it began as is not known; give --against"):
            benchmark(locate_model("micro"))
