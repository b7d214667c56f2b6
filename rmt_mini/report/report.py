"""The report of a run: what was found, in plain sentences computed from the run folder, then the evidence.

Text that a model wrote reaches the page escaped, so that no Markdown or HTML in it takes effect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.files import (
    DIGESTS,
    Evaluation,
    ExamEvaluation,
    File,
    Notes,
    Preflight,
    RolloutLine,
    Samples,
    read_lines,
    write_keeping,
)
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics
from rmt_mini.report import plots
from rmt_mini.report.findings import COLUMNS, Json, findings, limits, rows_of, share
from rmt_mini.report.markdown import code, escape, table
from rmt_mini.stages.preflight import agreement


def write_report(folder: Path) -> str:
    """Write report.md and figures/*.png into a run folder; works for an interrupted run too.

    Args:
        folder: as DESIGN section 6 lays it out; run.json must be there.

    Returns:
        The table for the terminal.

    Raises:
        UserError: if the folder holds no run.json, or a file with numbers in it is damaged.
    """
    run, evaluation = _plain(Notes.read(folder)), _plain(Evaluation.find(folder))
    samples = _plain(Samples.find(folder))
    foretold = _plain(Preflight.find(folder))
    steps = read_lines(folder / "metrics.jsonl", StepMetrics)
    rollouts = read_lines(folder / "rollouts.jsonl", RolloutLine)
    config, metrics = run["config"], steps.good
    status = f"The run is {run['status']}, with {len(metrics)} of {config['steps']} steps recorded."
    passed_over = {"metrics.jsonl": steps.skipped, "rollouts.jsonl": rollouts.skipped}
    parts = [
        f"# A run of RMT: preset {escape(config['preset'])}, seed {config['seed']}",
        *([] if (run["status"], len(metrics)) == ("done", config["steps"]) else [f"**{status}**"]),
        *_unreadable(passed_over),
        *findings(config, evaluation, metrics),
        *accuracies(evaluation),
        *_preflight(foretold),
        *_figures(folder, config, evaluation, metrics),
        *_settings(config),
        *_timing(run.get("seconds", {}), metrics),
        *_pages(samples, [one.model_dump() for one in rollouts.good]),
        *_origin(run),
        "## What this run cannot tell",
        "\n".join(f"- {limit}" for limit in limits(config, evaluation)),
    ]
    write_keeping(folder / "report.md", "\n\n".join(parts) + "\n")
    return evaluation_table(evaluation) if evaluation else f"No evaluation. {status}"


def write_exam_report(folder: Path) -> str:
    """Write report.md of a post-training run, and its figures.

    Args:
        folder: with run.json and evaluation.json.

    Returns:
        The table for the terminal.
    """
    run, evaluation = _plain(Notes.read(folder)), _plain(ExamEvaluation.read(folder))
    metrics = read_lines(folder / "metrics.jsonl", StepMetrics).good
    gain = evaluation["gain"]["1"]
    sign = int(gain["low"] > 0) - int(gain["high"] < 0)
    verdict = ("Whether it answers better cannot be told", "It answers better", "It answers worse")[sign]
    change, low, high = (100 * gain[key] for key in ("difference", "low", "high"))
    ks = list(evaluation["gain"])
    rows = []
    for when in ("before", "after"):
        row = evaluation[when]
        cells = (share(row["pass_at"][k], "{0:.1f} [{1:.1f}, {2:.1f}]") for k in ks)
        rows.append([when, *cells, f"{row['thought_length']:.1f}"])
    points = [[100 * one[key] for key in ("difference", "low", "high")] for one in evaluation["gain"].values()]
    rows.append(["gain", *("{:+.1f} [{:+.1f}, {:+.1f}]".format(*one) for one in points), ""])
    heads = ["", *(f"pass@{k}, %" for k in ks), "thought length, tokens"]
    drawn = {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)}
    for name, figured in drawn.items():
        plots.save(figured, folder / "figures" / f"{name}.png")
    parts = [
        f"# Post-training {escape(run['config']['model'])} on {escape(run['questions'])}, seed {run['seed']}",
        f"**{verdict}:** pass@1 changed by {change:+z.1f} points [{low:+z.1f}, {high:+z.1f}], question by question, in "
        f"{len(metrics)} steps of GRPO.",
        table(heads, rows),
        f"{evaluation['after']['questions']} held-out questions, {evaluation['after']['samples']} thoughts and answers "
        "to each; 95 % bootstrap intervals over questions.",
        *(f"![{figured.alt}](figures/{name}.png)" for name, figured in drawn.items()),
        *_timing(run.get("seconds", {}), metrics),
        *_origin(run),
    ]
    write_keeping(folder / "report.md", "\n\n".join(parts) + "\n")
    return table(heads, rows)


def _plain(found: File | None) -> Json:
    return {} if found is None else found.model_dump(mode="json", exclude_unset=True)


def evaluation_table(evaluation: Any) -> str:
    """Lay out evaluation.json for a terminal, within 80 characters; each interval stands below its number.

    Args:
        evaluation: any of "before", "cold_start" and "after"; rows that are not there are left out.

    Returns:
        Aligned lines.
    """
    evaluation = _plain(evaluation) if isinstance(evaluation, File) else evaluation
    lines = [["next tokens right, %", *COLUMNS, "length", "closed"]]
    for name, row in rows_of(evaluation):
        cells = [row[column] for column in COLUMNS]
        lines.append([name, *(share(cell) for cell in cells), *_thoughts(row)])
        lines.append(["", *(share(cell, "[{1:.0f}-{2:.0f}]") for cell in cells)])
    lines.append(["positions", *_positions(evaluation)])
    widths = (20, 10, 10, 10, 10, 8, 8)
    aligned = ("".join([f"{line[0]:<20}", *map(str.rjust, line[1:], widths[1:])]) for line in lines)
    note = "In brackets 95 % intervals; length: mean thought, tokens; closed: by itself."
    for name, row in rows_of(evaluation):
        for sort, cell in row.get("sorts", {}).items():
            told = share(cell, "{0:.1f} [{1:.0f}-{2:.0f}]")
            note += f"\n{name:<20} {told:>15} on {cell['n']} {sort} tokens, length {cell['thought_length']:.1f}"
    return "\n".join([*aligned, note])


def accuracies(evaluation: Json) -> Iterator[str]:
    """Lay out all accuracies and their differences; nothing where there is no evaluation."""
    if not evaluation:
        return
    yield "## Accuracy"
    yield "Next tokens right, in %, with 95 % intervals. In the paper's words plain is NTP, and thinking before is NTR."
    cell = "{0:.1f} [{1:.1f}, {2:.1f}]"
    rows = [[name, *(share(row[c], cell) for c in COLUMNS), *_thoughts(row)] for name, row in rows_of(evaluation)]
    rows.append(["positions", *_positions(evaluation), "", ""])
    yield table(["", *COLUMNS, "thought length, tokens", "closed by itself"], rows)
    yield from _sorts(evaluation)
    gains = {escape(name.replace("_", " ")): gain for name, gain in (evaluation.get("gain") or {}).items()}
    points = [
        [name, *(f"{100 * gain[key]:+z.1f}" for key in ("difference", "low", "high"))]
        for name, gain in gains.items()
        if gain["difference"] is not None
    ]
    if points:
        yield "Differences of the averages, position by position, in points:"
        yield table(["", "difference", "low", "high"], points)


def _sorts(evaluation: Json) -> Iterator[str]:
    """Lay out what a generated text knows about its tokens; nothing for any other text."""
    named = {name: row["sorts"] for name, row in rows_of(evaluation) if "sorts" in row}
    if named:
        sorts = list(next(iter(named.values())))
        cell = "{0:.1f} [{1:.1f}, {2:.1f}]"
        yield "By sort of token, which the generated text knows and no model is told, with the mean thought length:"
        rows = [
            [name, *(f"{share(row[sort], cell)}, {row[sort]['thought_length']:.1f}" for sort in sorts)]
            for name, row in named.items()
        ]
        counts = [str(next(iter(named.values()))[sort]["n"]) for sort in sorts]
        yield table(["", *sorts], [*rows, ["positions", *counts]])


def _preflight(found: Json) -> Iterator[str]:
    """Hold the pre-flight's prediction against the first steps of training."""
    if "seen" not in found:
        return
    yield "## Pre-flight"
    steps = found["seen"]["steps"]
    yield f"Share of groups with a match signal, foretold before training and seen in the first {steps} steps:"
    rows = []
    for tier in TIERS:
        told, seen = found["tiers"][tier], found["seen"]["tiers"][tier]
        cells = [(told["signal_groups"], told["positions"]), (seen["signal_groups"], seen["groups"])]
        verdict = {True: "yes", False: "no", None: "-"}[agreement(told, seen)]
        rows.append([tier, *("-" if value is None else f"{100 * value:.0f} % of {n}" for value, n in cells), verdict])
    yield table(["tier", "foretold", "seen", "as foretold"], rows)
    yield "As foretold: Fisher's exact test does not tell the two apart at 5 %. Training changes the policy meanwhile."


def _figures(folder: Path, config: Json, evaluation: Json, metrics: Sequence[StepMetrics]) -> Iterator[str]:
    drawn = {"accuracy": plots.accuracy(evaluation)} if evaluation else {}
    if metrics and config["use_rl"]:
        drawn["budget_and_length"] = plots.budget_and_length(metrics, config["use_budget"])
        drawn["tiers_drawn"] = plots.tiers_drawn(metrics, config["use_curriculum"])
        drawn |= {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)}
    drawn["losses"] = plots.losses(metrics)
    yield "## Figures"
    for name, figured in drawn.items():
        plots.save(figured, folder / "figures" / f"{name}.png")
        yield f"![{figured.alt}](figures/{name}.png)"


def _settings(config: Json) -> Iterator[str]:
    name, known = config["preset"], config["preset"] in PRESETS
    base = (preset(name) if known else RMTConfig()).to_dict()
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(RMTConfig)}
    yield f"## Settings\n\nIn bold what differs from {'the preset' if known else 'the defaults'}, whose value follows."
    rows = []
    for field, value in config.items():
        shown, was = (", ".join(map(str, v)) if isinstance(v, list | tuple) else v for v in (value, base.get(field)))
        same = shown == was or field == "preset"
        told = escape(shown) if same else f"**{escape(shown)}** ({escape(was) or 'empty'})"
        rows.append([f"`{field}`" if field in helps else code(field), told, helps.get(field, "")])
    yield table(["setting", "value", "meaning"], rows)


def _timing(seconds: Json, metrics: Sequence[StepMetrics]) -> Iterator[str]:
    yield "## Time"
    rows = [[name.replace("_", " "), f"{value:.1f}"] for name, value in seconds.items()]
    yield table(["stage", "seconds"], [*rows, ["total", f"{sum(seconds.values()):.1f}"]])
    if metrics:
        rollout, update = fmean(m.rollout_seconds for m in metrics), fmean(m.update_seconds for m in metrics)
        memory = max(m.peak_memory_mb for m in metrics)
        yield f"A step took {rollout:.2f} s to roll out and {update:.2f} s to update; peak memory was {memory:,.0f} MB."


def _pages(samples: Json, rollouts: Sequence[Json]) -> Iterator[str]:
    yield "## Rollouts, as the model wrote them"
    yield "␣ stands for a blank at an end, ↵ for a line end." if samples or rollouts else "None were recorded."
    if samples:
        keyed = (
            [((one["document"], one.get("index", one.get("position"))), one) for one in samples.get(when, [])]
            for when in ("before", "after")
        )
        before, after = map(dict, keyed)
        rows = [[_place(one), _said(before.get(key)), _said(after.get(key))] for key, one in (before | after).items()]
        yield "The same held-out positions before and after training:"
        yield table(["position", "before", "after"], rows)
    if rollouts:
        ends = sorted({rollouts[0]["step"], rollouts[-1]["step"]})
        chosen = [one for end in ends for one in [line for line in rollouts if line["step"] == end][:4]]
        rows = [[f"{one['step']}", _place(one), _said(one), f"{one['reward']:.2f}"] for one in chosen]
        yield "In training, at the first and the last recorded step:"
        yield table(["step", "position", "rollout", "reward"], rows)


def _place(line: Json) -> str:
    where = f"{TIERS[line['tier']]}, {line['entropy']:.1f} nats<br>…{code(line['context'])}"
    return f"{where}<br>next: {code(line['truth'])}"


def _said(line: Json | None) -> str:
    if line is None:
        return "-"
    ended = f"({'closed' if line['closed'] else 'cut off at the cap'}, budget {line['budget']})"
    answer = f"answer {code(line['answer'])}: {'right' if line['match'] else 'wrong'}"
    return f"{code(line['thought'])} {ended}<br>{answer}"


def _origin(run: Json) -> Iterator[str]:
    yield "## Where this run comes from"
    names = ["command", "status", "error", "start", "end", "machine", "versions", *DIGESTS]
    names += ["unknown_share", "questions_left_out"]
    found = {name.replace("_", " "): run[name] for name in names if name in run}
    flat = {k: ", ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v for k, v in found.items()}
    yield table(["", ""], [[name, code(value, limit=1000)] for name, value in flat.items()])


def _unreadable(passed_over: Mapping[str, int]) -> Iterator[str]:
    """Say what could not be read: numbers from the rest of a file are not those of the whole."""
    counts = [f"{count} line{'s' if count > 1 else ''} of {name}" for name, count in passed_over.items() if count]
    if counts:
        yield f"**Not readable, and passed over: {' and '.join(counts)}.** What follows is computed from the others."


def _thoughts(row: Json) -> list[str]:
    return [f"{row['thought_length']:.1f}", f"{100 * row['closed_share']:.0f} %"] if row["budget"] else ["-", "-"]


def _positions(evaluation: Json) -> list[str]:
    return [str(row[column]["n"]) for _, row in list(rows_of(evaluation))[:1] for column in COLUMNS]
