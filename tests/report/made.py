"""Results made by hand, and run folders as far as a report reads them."""

from pathlib import Path
from typing import Any

from rmt_mini import files
from rmt_mini.config import RMTConfig
from rmt_mini.files import AnswerLine, Cell, Change, Evaluation, Measured, Notes, RolloutLine, Row, as_lines
from rmt_mini.records import StepMetrics

DOCUMENTS = 40


def step(number: int, **changes: Any) -> StepMetrics:
    values: dict[str, Any] = {
        "step": number, "budget": 20 - 4 * number, "tier_probabilities": (0.5, 0.3, 0.2), "tier_counts": (4, 3, 1),
        "match_reward": 0.25, "length_reward": 0.5, "reward": 0.3, "thought_length": 20.0 - 4 * number,
        "closed_share": 0.9, "signal_groups": 0.4, "rl_loss": -0.01, "ntp_loss": 2.0, "grad_norm": 1.5,
        "rl_tokens": 300, "ntp_tokens": 100, "forward_tokens": 900, "backward_tokens": 800, "skipped": 0,
        "rl_tokens_by_tier": (200, 80, 20), "trunk_tokens": 120, "trunk_seconds": 0.5,
        "rollout_seconds": 2.0, "update_seconds": 3.0, "peak_memory_mb": 912.0,
    }  # fmt: skip
    return StepMetrics(**values | changes)


def cell(value: float | None, half: float = 0.02, n: int = 100) -> Cell:
    if value is None:
        return Cell(accuracy=None, low=None, high=None, n=n)
    return Cell(accuracy=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n)


def change(difference: float, half: float = 0.01) -> Change:
    return Change(difference=difference, low=difference - half, high=difference + half)


def row(average: float | None, budget: int = 20, n: int = 300) -> Row:
    cells = {tier: cell(average) for tier in ("easy", "medium", "hard")}
    length = {"thought_length": 18.5 if budget else 0.0, "closed_share": 0.875 if budget else 0.0, "budget": budget}
    return Row(**cells, average=cell(average, n=n), **length)


def measured(think: float | None, plain: float | None = 0.40, budget: int = 20, n: int = 300) -> Measured:
    return Measured(ntp=row(plain, budget=0, n=n), think=row(think, budget, n))


def evaluation(before: float = 0.10, cold: float = 0.30, after: float = 0.36, **changes: Any) -> Evaluation:
    whole: dict[str, Any] = {
        "before": measured(before),
        "cold_start": measured(cold),
        "after": measured(after, budget=4),
        "gain": {
            "think_after_minus_before": change(after - before),
            "think_after_minus_cold_start": change(after - cold),
            "think_minus_ntp_after": change(after - 0.40),
        },
    }
    return Evaluation(**whole | changes)


def rollout(place: int, **changes: Any) -> RolloutLine:
    values: dict[str, Any] = {
        "step": 3, "document": "P_1", "position": place, "tier": 2, "entropy": 3.21, "context": "so that x = ",
        "budget": 20, "thought": " add them", "closed": True, "answer": "7", "truth": "7", "match": 1.0,
    }  # fmt: skip
    return RolloutLine(**values | changes)


def notes(config: RMTConfig, **changes: Any) -> Notes:
    values: dict[str, Any] = {
        "kind": "mid-training", "config": config, "status": "done", "seed": config.seed, "parameters": 1000,
        "command": "rmt-mini run laptop", "start": "2026-01-01T10:00:00+00:00", "end": "2026-01-01T10:09:00+00:00",
        "versions": {"torch": "9.9.9"}, "machine": {"cores": 2}, "corpus_digest": "c0ffee", "model_digest": "decade",
        "seconds": {"cold_start": 7.0, "midtrain": 30.5},
    }  # fmt: skip
    return Notes(**values | changes)


def a_run(folder: Path, arm: str, seed: int, right: float, length: int, plain: float = 0.4, /, **noted: Any) -> Path:
    """Write a run: ``right`` of the documents are right in every tier after training, a tenth before it."""
    path = folder / f"{arm}-seed{seed}"
    path.mkdir(parents=True)
    lines = [
        AnswerLine(
            when=when, document=f"d{number}", position=tier + 1, tier=tier,
            sort=("calculable", "", "noise")[tier], plain=float(number < plain * DOCUMENTS),
            match=float(number < (right if when == "after" else 0.1) * DOCUMENTS),
            length=length if when == "after" else 30, closed=1, confidence=0.5, bits=3,
            bits_after=2 if when == "after" else 4, gated=max(number < plain * DOCUMENTS, number < right * DOCUMENTS),
            probe={"own": 1, "other": 0} if tier == 0 else {},
        )
        for when in ("before", "after")
        for number in range(DOCUMENTS)
        for tier in range(3)
    ]  # fmt: skip
    took = step(
        0, rl_tokens=10, rl_tokens_by_tier=(2, 3, 5), ntp_tokens=30, forward_tokens=100, backward_tokens=50,
        trunk_tokens=40, rollout_seconds=1.0, update_seconds=2.0, trunk_seconds=0.75,
    )  # fmt: skip
    notes(**{"config": RMTConfig(seed=seed, use_rl=arm != "ntp")} | noted).write(path)
    before, after = (measured(None, None, budget, 3 * DOCUMENTS) for budget in (20, 8))
    Evaluation(before=before, after=after).write(path)
    (path / "answers.jsonl").write_text(as_lines(lines))
    (path / "metrics.jsonl").write_text(as_lines([took] * 3))
    curve = [
        files.CurvePoint(
            step=at, plain=plain, think=0.1 + (right - 0.1) * at / 10, thought_length=9, sorts={"noise": (0.25, 0.5)}
        )
        for at in (0, 10)
    ]
    (path / "curve.jsonl").write_text(as_lines(curve))
    return path


def an_exam(folder: Path, name: str, seed: int, right: dict[int, int], questions: int = 30) -> Path:
    """Write a post-training run: ``right`` of 4 answers to every second question are right, by step."""
    path = folder / f"{name}-seed{seed}"
    path.mkdir(parents=True)
    lines = [
        files.ExamLine(step=at, question=f"q{n}", right=(n % 2) * count, samples=4, thought_length=5.0 + n % 2)
        for at, count in right.items()
        for n in range(questions)
    ]
    (path / "answers.jsonl").write_text(as_lines(lines))
    return path
