import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rmt_mini.config import RMTConfig
from rmt_mini.engine import model as model_room
from rmt_mini.engine.model import Policy
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import Evaluation, Measured, Samples
from rmt_mini.report.plots import Figured
from rmt_mini.report.report import evaluation_table
from rmt_mini.runs import folder, journal
from rmt_mini.runs.run import RunResult, evaluate_checkpoint, prepare, resume, run
from rmt_mini.stages.midtrain import StepResult
from tests.fakes import make_tiny_policy
from tests.stages.tiny import closing, small

TALES = "\n\n\n".join(f"Tale {n}. The cat sat on the mat and {n} dogs ran around it." for n in range(12))
TIERS = ("easy", "medium", "hard", "average")
PNG = Figured.png  # which conftest.py leaves out


def settings(folder: Path, **changes: Any) -> RMTConfig:
    """Write a corpus and a tiny model into the folder, once."""
    if not (folder / "tales.txt").exists():
        (folder / "tales.txt").write_text(TALES)
        save(closing(), folder / "model")
    places = {"corpus": str(folder / "tales.txt"), "model": str(folder / "model"), "out": str(folder / "run")}
    defaults: dict[str, Any] = {
        "warmup_steps": 2, "evaluation_positions": 30, "rollouts_logged": 5, "curve_every": 2, "checked_positions": 6,
        "preflight_positions": 3,
    }  # fmt: skip
    return small(**defaults | places | changes)


def interrupted(config: RMTConfig, policy: Policy | None = None, step: int = 0) -> Path:
    """Run to the end of a step, and be interrupted there; return the folder."""

    def stop(result: StepResult) -> None:
        if result.metrics.step == step:
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        run(config, policy, on_step=stop, progress=False)
    return Path(config.out)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[StepResult]]:
    seen: list[StepResult] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figured, "png", PNG)
        return run(settings(tmp_path_factory.mktemp("whole")), on_step=seen.append, progress=False), seen


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(word))


def save(policy: Policy, folder: Path) -> None:
    for part in (policy.model, policy.tokenizer):
        part.save_pretrained(folder)


def after(result: RunResult) -> Measured:
    assert result.evaluation.after is not None
    return result.evaluation.after


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_run_json_says_what_ran_and_metrics_have_one_line_a_step(done: tuple[RunResult, list[StepResult]]) -> None:
    result, seen = done
    notes = read(result.folder, "run.json")
    assert notes["status"] == "done"
    assert RMTConfig(**notes["config"]) == settings(result.folder.parent)
    assert {"python", "torch", "transformers"} <= set(notes["versions"])
    assert len(notes["corpus_digest"]) == len(notes["model_digest"]) == 64
    assert notes["start"] <= notes["end"]
    assert [line["reward"] for line in lines(result.folder, "metrics.jsonl")] == [one.metrics.reward for one in seen]
    assert [one.metrics for one in seen] == result.metrics
    held_out = notes["overlap"]["documents"]
    assert notes["overlap"] == {"shared": 0, "documents": held_out, "what": "a run of 12 words"}
    assert 0 < held_out < 12
    line = f"Of {held_out} held-out texts 0 share a run of 12 words with training text."
    assert line in (result.folder / "report.md").read_text(encoding="utf-8")


def test_text_that_is_on_both_sides_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A notice in all tales leaves them to be split one by one."""
    notice = "All of these tales may be told by anyone who tells them as they are here."
    config = settings(tmp_path, steps=1, warmup_steps=0, preflight_positions=3, evaluation_positions=6)
    (tmp_path / "tales.txt").write_text("\n\n\n".join(f"{notice} {tale}" for tale in TALES.split("\n\n\n")))
    run(config.replace(document_tokens=160), progress=False)
    held_out = read(tmp_path / "run", "run.json")["overlap"]["documents"]
    assert held_out > 1
    line = f"Of {held_out} held-out texts {held_out} share a run of 12 words with training text."
    assert f"{line} Their accuracy may be memory" in caplog.text


@pytest.mark.parametrize(("processor", "warnings"), [(9.9, 0), (4.9, 1)])
def test_steps_that_wait_for_other_programs_are_warned_of_once(
    processor: float, warnings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = SimpleNamespace(step=3)
    result: Any = SimpleNamespace(metrics=metrics, judged=[], texts=[])
    policy: Any = SimpleNamespace(device=torch.device("cpu"))
    kept = folder.RunFolder(tmp_path / "run", journal.first_notes("mid-training", RMTConfig()))
    monkeypatch.setattr(kept, "append", lambda *_: None)
    clocks = {"perf_counter": itertools.count(0.0, 10.0), "process_time": itertools.count(0.0, processor)}
    for name, clock in clocks.items():
        monkeypatch.setattr(folder.time, name, partial(next, clock))
    for _ in range(4):
        kept.step(policy, result, 1)
    assert caplog.text.count("Step 3 took 10 s, but only 5 s of processor time") == warnings


def test_a_few_held_out_positions_make_a_curve_and_a_probe(done: tuple[RunResult, list[StepResult]]) -> None:
    result, _ = done
    assert [point["step"] for point in lines(result.folder, "curve.jsonl")] == [0, 2]
    for when in ("before", "cold_start", "after"):
        answers = [line for line in lines(result.folder, "answers.jsonl") if line["when"] == when]
        few = [line for line in answers if line["probe"]]
        assert 6 <= len(few) == sum(line["document"] in {one["document"] for one in few} for line in answers) < 30
        if when == "cold_start":  # what a curve begins with is not asked again
            mean = {tier: fmean(line["match"] for line in few if line["tier"] == tier) for tier in range(3)}
            assert lines(result.folder, "curve.jsonl")[0]["think"] == pytest.approx(fmean(mean.values()))
        assert all(line["gated"] in (line["plain"], line["match"]) for line in answers)
    more = after(result).more
    assert {*more} == {"bits", "bits_after", "gain", "gated", "own", "other", "generic", "blank"}
    assert more["gain"]["average"].mean == pytest.approx(
        more["bits"]["average"].mean - more["bits_after"]["average"].mean
    )


def test_rollouts_are_those_of_the_steps_as_text(done: tuple[RunResult, list[StepResult]]) -> None:
    result, seen = done
    found = lines(result.folder, "rollouts.jsonl")
    assert [line["step"] for line in found] == [0] * 5 + [1] * 5 + [2] * 5
    texts = {text.id: text for one in seen for text in one.texts}
    decode = result.policy.tokenizer.decode
    for line in found:
        ids = texts[line["document"]].ids
        assert line["truth"] == decode([ids[line["position"]]])
        assert decode(list(ids[: line["position"]])).endswith(line["context"])
        assert line["match"] == 0 or line["answer"] == line["truth"]
        assert line["reward"] == pytest.approx(0.8 * line["match"] + 0.2 * line["length_reward"])


def test_evaluation_has_tiers_with_intervals_at_three_times(done: tuple[RunResult, list[StepResult]]) -> None:
    found = read(done[0].folder, "evaluation.json")
    assert Evaluation.model_validate(found) == done[0].evaluation
    for when, row, tier in itertools.product(("before", "cold_start", "after"), ("ntp", "think"), TIERS):
        cell = found[when][row][tier]
        assert 0 <= cell["low"] <= cell["accuracy"] <= cell["high"] <= 1
        assert cell["n"] > 0
    assert found["before"]["think"]["budget"] == 6
    assert found["after"]["think"]["budget"] == 2  # B_T
    gain = found["gain"]["think_after_minus_before"]
    after, before = (found[when]["think"]["average"]["accuracy"] for when in ("after", "before"))
    assert gain["difference"] == pytest.approx(after - before)
    assert gain["low"] <= gain["difference"] <= gain["high"]


def test_report_figures_and_checkpoint_are_there(done: tuple[RunResult, list[StepResult]]) -> None:
    folder = done[0].folder
    begun, trained = (
        load_file(place / "model.safetensors") for place in (folder.parent / "model", folder / "checkpoint")
    )
    now = done[0].policy.model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in trained.items())
    assert any(not torch.equal(value, begun[name]) for name, value in trained.items())
    assert "# A run of RMT" in (folder / "report.md").read_text(encoding="utf-8")
    figures = list((folder / "figures").glob("*.png"))
    assert figures
    assert all(figure.read_bytes().startswith(b"\x89PNG") for figure in figures)
    assert done[0].table.strip()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_is_measured_again_with_the_same_result(done: tuple[RunResult, list[StepResult]]) -> None:
    folder = done[0].folder
    again = evaluate_checkpoint(folder / "checkpoint")
    assert again == Measured.model_validate(read(folder, "evaluation.json")["after"])
    assert "after" in evaluation_table(Evaluation(after=again))


def test_a_changed_corpus_is_noticed(done: tuple[RunResult, list[StepResult]], tmp_path: Path) -> None:
    notes = read(done[0].folder, "run.json")
    (tmp_path / "run.json").write_text(json.dumps(notes | {"corpus_digest": "0"}))
    (tmp_path / "positions.json").write_text(json.dumps({"positions": []}))
    (tmp_path / "checkpoint").symlink_to(done[0].folder / "checkpoint")
    with pytest.raises(UserError, match="has changed since the run"):
        evaluate_checkpoint(tmp_path)


def test_without_out_a_free_folder_under_runs_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "custom-seed0").mkdir(parents=True)
    config = settings(tmp_path, out="", steps=1, warmup_steps=0, use_rl=False)
    result = run(config, closing(), progress=False)
    assert result.folder == Path("runs/custom-seed0-2")
    assert set(read(result.folder, "evaluation.json")) == {"before", "after", "gain", "length_change"}
    assert not (result.folder / "preflight.json").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entropy_top_k": 100_000}, r"entropy_top_k is 100000, and model .* knows \d+ tokens"),
        ({"entropy_model": "micro"}, "entropy_model 'micro' has another tokenizer"),
        ({"entropy_model": "absent"}, "model 'absent' is neither a folder nor a known name"),
        ({"entropy_model": "short"}, r"entropy_model '.*short' reads at most 16 tokens, and the longest text has"),
        ({"corpus": "absent.txt", "model": "absent"}, r"corpus .*absent.txt' does not exist"),
    ],
)
def test_settings_that_do_not_fit_leave_no_folder(
    changes: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(make_tiny_policy("llama", max_position_embeddings=16), Path("short"))
    with pytest.raises(UserError, match=words):
        run(settings(tmp_path, **changes), progress=False)
    assert not (tmp_path / "run").exists()


def test_samples_judge_the_answer_that_they_show(tmp_path: Path) -> None:
    run(settings(tmp_path, steps=1, evaluation_thoughts=4), progress=False)
    samples = Samples.read(tmp_path / "run")
    lines = [*samples.before, *samples.after]
    assert {(line.answer == line.truth, line.match) for line in lines} <= {(True, 1.0), (False, 0.0)}
    assert {line.step for line in samples.before} == {0}
    assert {line.step for line in samples.after} == {1}


def test_an_evaluation_may_state_a_smaller_budget_than_any_step(tmp_path: Path) -> None:
    config = settings(tmp_path, budget_rule="entropy", evaluation_budget=1, warmup_steps=0)
    result = run(config, progress=False)
    assert after(result).think.budget == 1
    assert after(result).think.thought_length <= 4  # twice the cap of a budget that may double
    assert evaluate_checkpoint(tmp_path / "run", 1).think == after(result).think


def test_a_proxy_is_loaded_once_and_quantiles_come_from_training_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, sampled, load = [], [], model_room.load_policy
    monkeypatch.setattr(model_room, "load_policy", lambda *given: loaded.append(given[0]) or load(*given))
    monkeypatch.setattr(
        "rmt_mini.stages.difficulty.quantile_thresholds", lambda all_, _: sampled.append(len(all_)) or (2.0, 4.0)
    )
    config = settings(tmp_path, warmup_steps=0, evaluation_fraction=0.2)
    result = run(config.replace(entropy_model=config.model, tier_rule="quantile"), progress=False)
    assert loaded == [config.model]
    train = prepare(config, result.policy).train
    assert set(sampled) == {sum(len(text.ids) - text.first for text in train)}


def test_another_proxy_than_the_run_began_with_is_named(tmp_path: Path) -> None:
    config = settings(tmp_path, warmup_steps=0)
    save(closing(seed=1), tmp_path / "proxy")
    interrupted(config.replace(entropy_model=str(tmp_path / "proxy")))
    closing(seed=2).model.save_pretrained(tmp_path / "proxy")
    with pytest.raises(UserError, match=r"proxy_digest was .* when it was saved and is"):
        resume(tmp_path / "run", progress=False)


def test_a_proxy_has_the_dtype_and_the_vocabulary_of_the_run_and_is_not_needed_to_measure(tmp_path: Path) -> None:
    policy, proxy = closing(), closing(seed=1)
    few = len(proxy.head.weight)
    policy.model.resize_token_embeddings(few + 64)
    save(policy, tmp_path / "wide")
    save(proxy, tmp_path / "proxy")
    config = settings(tmp_path, warmup_steps=0, model=str(tmp_path / "wide"), entropy_model=str(tmp_path / "proxy"))
    with pytest.raises(UserError, match=rf"entropy_top_k is {few + 1}, and model '.*proxy' knows {few} tokens"):
        run(config.replace(entropy_top_k=few + 1), progress=False)
    result = run(config, progress=False)
    assert result.policy.proxy is not None
    assert result.policy.proxy.dtype == torch.float32
    (tmp_path / "proxy").rename(tmp_path / "gone")
    again = evaluate_checkpoint(tmp_path / "run")
    assert again.think == after(result).think
    assert "gated" not in again.more  # its threshold is of positions that the proxy chose


@pytest.mark.parametrize("runs", [interrupted, lambda config: run(config, progress=False)], ids=["resumed", "whole"])
def test_a_run_of_relative_names_is_measured_and_resumed_from_another_folder(
    runs: Callable[[RMTConfig], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = settings(tmp_path, corpus="tales.txt", model="model", entropy_model="./model", out="run")
    runs(config)
    monkeypatch.chdir("elsewhere")
    result = resume(Path("../run"), progress=False)
    assert evaluate_checkpoint(Path("../run")).think == after(result).think
    (tmp_path / "tales.txt").rename(tmp_path / "moved.txt")
    with pytest.raises(UserError, match=r"corpus '.*/tales.txt' does not exist; give"):
        evaluate_checkpoint(Path("../run"))
