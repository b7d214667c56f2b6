"""What mid-training cost elsewhere: lm-evaluation-harness on a model before and after, task by task.

    rmt-mini benchmark RUN                           the model that a run began with, and its checkpoint
    rmt-mini benchmark MODEL --against BASE          any two models
    --tasks champ,gym:chain_sum,lambada_openai       sources of questions (worlds/questions.py) and tasks of lm-eval

A source of questions becomes a task file of lm-eval: how likely is the right answer after the question, without a
thought, and would greedy decoding give it? That needs no network; other tasks load their data from the Hugging Face
Hub. Both models get the same questions, so the interval of a difference is that of paired differences.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM

from rmt_mini.engine.model import load_tokenizer, locate_model
from rmt_mini.errors import UserError, refusing, require_package
from rmt_mini.files import Benchmark, Change, Mean, Notes, Retained
from rmt_mini.report.markdown import macro
from rmt_mini.runs.journal import versions
from rmt_mini.runs.pre_and_post import usual_source
from rmt_mini.stages.statistics import GAP, SHARE, interval_of_mean
from rmt_mini.worlds.questions import as_file_name, load_questions

COUNT, SEED = 200, 1  # of questions that are generated
LOCAL = {
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "loglikelihood",
    "doc_to_text": "{{text}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": "",
    "metric_list": [{"metric": name} for name in ("acc", "perplexity")],
}
NATS = "log-likelihood, nats"  # what a sample's "perplexity" is, before lm-eval takes the mean and exp of minus it
Values = dict[str, dict[str, list[float]]]  # task -> metric -> a value a question


def benchmark(
    checkpoint: str, against: str | None = None, tasks: Sequence[str] = (), limit: int | None = None
) -> tuple[Benchmark, str]:
    """Evaluate a model and what it began as on log-likelihood tasks; returns what changed, and its table.

    Args:
        checkpoint: a run folder, which gets benchmark.json and the task files in benchmark/, or any name of a model.
        against: the model before; a run folder names its own.
        tasks: sources of questions, and names of tasks of lm-eval; none: the source that fits the model.
        limit: most questions of a task; None: 200 of a source, and all of a task of lm-eval.

    Raises a UserError where lm-eval is not installed, a task is unknown or its data cannot be loaded.
    """
    require_package("lm_eval", "benchmark", "pip install 'lm-eval[hf]'")
    folder = Path(checkpoint)
    is_run = (folder / Notes.NAME).is_file()
    before = against or (Notes.read(folder).settings.model if is_run else None)
    if before is None:
        raise UserError(f"{checkpoint!r} is no run folder, so what it began as is not known; give --against MODEL")
    after = str(folder / "checkpoint") if is_run else checkpoint
    source = () if tasks else (usual_source(after),)
    with tempfile.TemporaryDirectory() as scratch:
        place = folder / "benchmark" if is_run else Path(scratch)
        names = [_task_file(place, task, limit or COUNT) for task in (*tasks, *source)]
        values = [_values(name, names, place, Path(scratch), limit) for name in (before, after)]
    changed = {task: dict(_changes(values[0][task], values[1][task])) for task in values[0]}
    found = Benchmark(before=before, after=after, limit=limit, tasks=changed, versions=versions("lm-eval"))
    if is_run:
        found.write(folder)
    return found, macro("tables.md.j2", "retained", found.tasks)


def _task_file(folder: Path, task: str, count: int) -> str:
    """Write a source of questions as a task of lm-eval, for ``--include_path``; any other name is lm-eval's own."""
    try:
        questions = load_questions(task, count, SEED)
    except UserError as error:
        if task.startswith("gym:") or "are unknown" not in str(error):
            raise
        return task
    name = f"rmt_{as_file_name(task)}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": one.id, "text": one.text, "answer": one.answer}) for one in questions]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {"data_files": {"test": str((folder / f"{name}.jsonl").absolute())}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **LOCAL, "dataset_kwargs": data}), "utf-8")
    return name


def _values(model: str, tasks: Sequence[str], files: Path, cache: Path, limit: int | None) -> Values:
    """Return every metric that is a number for each question."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.config.HF_DATASETS_CACHE = cache  # questions of today are no one's tomorrow
    weights: Any = AutoModelForCausalLM.from_pretrained(locate_model(model), trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = HFLM(pretrained=weights.to(device).eval(), tokenizer=load_tokenizer(model), batch_size=16)
    own = all((files / f"{task}.yaml").exists() for task in tasks)  # else lm-eval reads its own thousands, too
    manager = TaskManager(include_path=str(files) if files.exists() else None, include_defaults=not own)
    with refusing(f"lm-eval cannot run {', '.join(tasks)}", "check their names, or name others as --tasks"):
        found = simple_evaluate(lm, tasks=[*tasks], limit=limit, task_manager=manager, bootstrap_iters=0)
    values = Values()
    for task, samples in found["samples"].items():
        for metric in samples[0]["metrics"]:
            of_each = [sample[metric] for sample in samples]
            if all(isinstance(value, int | float) for value in of_each):
                values.setdefault(task, {})[NATS if metric == "perplexity" else metric] = [*map(float, of_each)]
    return values


def _changes(before: dict[str, list[float]], after: dict[str, list[float]]) -> Iterator[tuple[str, Retained]]:
    for metric in before:
        old, new = np.array(before[metric]), np.array(after[metric])
        share = all(0 <= value <= 1 for value in (*old, *new)) and metric != NATS
        ends = [Mean(**interval_of_mean(one, SHARE if share else None)) for one in (old, new)]
        gap = interval_of_mean(new - old, GAP if share else None)
        difference = Change(difference=gap.pop("mean"), **gap)
        yield metric, Retained(before=ends[0], after=ends[1], change=difference)
