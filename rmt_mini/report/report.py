"""Reports: what was found first, then the evidence; typed files in, report.md and figures out. Runs nothing.

The pages are templates (templates/*.md.j2). Text that a model wrote passes the filters ``escape`` or ``code``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rmt_mini import files
from rmt_mini.arms import METHOD
from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.files import ArmRow, Comparison, Evaluation, ExamOutcome, Notes, RolloutLine, Variant
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics
from rmt_mini.report import claims, plots
from rmt_mini.report.claims import SHOWN, SYMBOLS, findings, rows_of, trained_as
from rmt_mini.report.comparison import SIGN, across_seeds
from rmt_mini.report.markdown import macro, render
from rmt_mini.report.plots import Figured
from rmt_mini.stages.preflight import agreement
from rmt_mini.worlds.questions import as_file_name

TABLES = "tables.md.j2"
ORIGIN = (
    "command", "status", "error", "start", "end", "machine", "versions", *files.DIGESTS, "unknown_share",
    "questions_left_out",
)  # fmt: skip


def write_report(folder: Path) -> str:
    """Write report.md and figures/*.png into a run folder, of an interrupted run too; returns the terminal's table.

    Raises:
        UserError: if the folder holds no run.json, or a file with numbers in it is damaged.
    """
    notes, found = Notes.read(folder), Evaluation.find(folder)
    config, evaluation, preflight = notes.settings, found or Evaluation(), files.Preflight.find(folder)
    steps = files.read_lines(folder / "metrics.jsonl", StepMetrics)
    rollouts = files.read_lines(folder / "rollouts.jsonl", RolloutLine)
    status = f"The run is {notes.status}, with {len(steps.good)} of {config.steps} steps recorded."
    seen = preflight.seen.tiers if preflight and preflight.seen else {}
    rows = [(tier, preflight.tiers[tier], seen[tier]) for tier in TIERS if preflight and tier in seen]
    ends = sorted({line.step for line in (rollouts.good[:1] + rollouts.good[-1:])})
    page = render(
        "run.md.j2",
        **_about(notes, steps.good),
        config=config,
        status="" if (notes.status, len(steps.good)) == ("done", config.steps) else status,
        skipped={"metrics.jsonl": steps.skipped, "rollouts.jsonl": rollouts.skipped},
        findings=findings(config, evaluation, steps.good),
        evaluation=evaluation,
        rows=rows_of(evaluation),
        preflight=preflight,
        agreements=[(*row, agreement(row[1], row[2])) for row in rows],
        figures=_drawn(folder / "figures", _run_figures(config, found, steps.good)),
        known=config.preset in PRESETS,
        settings=_compared_with_preset(config),
        samples=_side_by_side(files.Samples.find(folder) or files.Samples()),
        rollouts=[line for end in ends for line in [one for one in rollouts.good if one.step == end][:4]],
    )
    files.write_keeping(folder / "report.md", page)
    return evaluation_table(found) if found else f"No evaluation. {status}"


def write_exam_report(folder: Path) -> str:
    """Write report.md and figures of a post-training run; returns the terminal's table."""
    notes, evaluation, metrics = Notes.read(folder), files.ExamEvaluation.read(folder), files.read_metrics(folder)
    figures = _drawn(folder / "figures", {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)})
    given = _about(notes, metrics) | {"evaluation": evaluation, "figures": figures, "steps": len(metrics)}
    files.write_keeping(folder / "report.md", render("exam.md.j2", **given))
    return macro(TABLES, "exam_run", evaluation)


def write_seeds_report(folders: Sequence[Path], out: Path) -> str:
    """Write evaluation.json, report.md and accuracy.png of runs that differ in their seed; returns the table.

    Raises:
        UserError: as ``across_seeds``, or if ``out`` is in use.
    """
    files.require_free(out)
    evaluation, config = across_seeds(folders), Notes.read(folders[0]).settings
    out.mkdir(parents=True, exist_ok=True)
    evaluation.write(out)
    given = {"config": config, "evaluation": evaluation, "rows": rows_of(evaluation)}
    given |= {"findings": findings(config, evaluation, None)}
    given |= {"figures": _drawn(out, {"accuracy": plots.accuracy(evaluation)})}
    files.write_keeping(out / "report.md", render("seeds.md.j2", **given))
    return evaluation_table(evaluation)


def write_comparison_report(
    folder: Path, found: Comparison, exams: Mapping[str, ExamOutcome] | None = None, variants: Sequence[Variant] = ()
) -> str:
    """Write report.md and figures of a comparison; returns the table of accuracies, or of the variants.

    ``exams`` are by the source of their questions.
    """
    figures, judged = {"arms": plots.arms(_shown(found))}, claims.claims(found)
    for source, exam in (exams or {}).items():
        curves = {trained_as(name): steps for name, steps in exam.arms.items()}
        figures[f"posttraining-{as_file_name(source)}"] = plots.exam_curves(curves)
        judged = claims.ordered([*judged, *claims.exam_claims(exam, source)])
    if variants:
        figures["sensitivity"] = plots.tornado(variants)
    clear: dict[str, list[str]] = {SYMBOLS[one.setting]: [] for one in variants}
    for one in variants:
        if one.accuracy.sign:
            clear[SYMBOLS[one.setting]].append(f"{one.value} {100 * (one.accuracy.difference or 0.0):+.1f}")
    page = render(
        "comparison.md.j2",
        found=found,
        arms=_shown(found),
        shown=_words(found),
        pairs={(pair.b, pair.tier): pair for pair in found.paired},
        longer=found.arms.get("ntp-equal-compute"),
        claims=judged,
        moved=[f"{name} ({'; '.join(changes)})" for name, changes in clear.items() if changes],
        still=[name for name, changes in clear.items() if not changes],
        exams=[_exam_part(exam, source) for source, exam in (exams or {}).items()],
        variants=variants_table(variants) if variants else "",
        figures=_drawn(folder / "figures", figures),
        paper=paper_table(),
        paper_exams=paper_exam_table(),
    )
    files.write_keeping(folder / "report.md", page)
    return variants_table(variants) if variants else accuracy_table(found)


# Tables and figures that lessons show as well


def accuracy_table(found: Comparison) -> str:
    """Lay out accuracies in the layout of the paper's table."""
    return macro(TABLES, "accuracies", _shown(found))


def sorts_table(found: Comparison) -> str:
    """Lay out accuracies by sort of token, which a generated text knows."""
    return macro(TABLES, "sorts", _shown(found))


def paper_table() -> str:
    """Lay out the paper's accuracies."""
    lengths = {SHOWN[name]: length for name, length in claims.PAPER_LENGTHS.items()}
    return macro(TABLES, "paper", {SHOWN[name]: values for name, values in claims.PAPER.items()}, lengths)


def variants_table(variants: Sequence[Variant]) -> str:
    """Lay out every variant of a setting against the method."""
    return macro(TABLES, "variants", variants, SYMBOLS)


def exam_table(found: ExamOutcome) -> str:
    """Lay out pass@1 and pass@k before and after post-training."""
    models = {trained_as(name): steps for name, steps in found.arms.items()}
    return macro(TABLES, "exams", models, list(dict.fromkeys((1, found.samples))))


def paper_exam_table() -> str:
    """Lay out the paper's results after post-training."""
    return macro(TABLES, "paper_exams", {trained_as(name): values for name, values in claims.PAPER_EXAMS.items()})


def evaluation_table(evaluation: Evaluation) -> str:
    """Lay out evaluation.json for a terminal, within 80 characters; each interval is below its number."""
    return macro(TABLES, "terminal", rows_of(evaluation))


# What the templates are given


def _about(notes: Notes, metrics: Sequence[StepMetrics]) -> dict[str, Any]:
    """Say where a run comes from and what time it took."""
    origin = {name.replace("_", " "): getattr(notes, name) for name in ORIGIN}
    origin = {
        name: ", ".join(f"{a} {b}" for a, b in value.items()) if isinstance(value, dict) else value
        for name, value in origin.items()
        if value is not None
    }
    means = [fmean(getattr(m, f"{part}_seconds") for m in metrics) for part in ("rollout", "update") if metrics]
    timing = [*means, max(m.peak_memory_mb for m in metrics)] if metrics else []
    return {"notes": notes, "origin": origin, "timing": timing}


def _run_figures(
    config: RMTConfig, evaluation: Evaluation | None, metrics: Sequence[StepMetrics]
) -> dict[str, Figured]:
    figures = {"accuracy": plots.accuracy(evaluation)} if evaluation else {}
    if metrics and config.use_rl:
        figures["budget_and_length"] = plots.budget_and_length(metrics, config.use_budget)
        figures["tiers_drawn"] = plots.tiers_drawn(metrics, config.use_curriculum)
        figures |= {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)}
    return figures | {"losses": plots.losses(metrics)}


def _drawn(folder: Path, figures: dict[str, Figured]) -> dict[str, Figured]:
    for name, figured in figures.items():
        plots.save(figured, folder / f"{name}.png")
    return figures


def _compared_with_preset(config: RMTConfig) -> list[tuple[str, str, str, str]]:
    """List every setting, its value, that of the preset, and what it means."""
    base = preset(config.preset) if config.preset in PRESETS else RMTConfig()
    helps = {name: field.description or "" for name, field in RMTConfig.model_fields.items()}

    def shown(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [(name, shown(getattr(config, name)), shown(getattr(base, name)), help) for name, help in helps.items()]


def _side_by_side(samples: files.Samples) -> list[tuple[RolloutLine | None, RolloutLine | None]]:
    before, after = ({(one.document, one.position): one for one in part} for part in (samples.before, samples.after))
    return [(before.get(key), after.get(key)) for key in before | after]


def _shown(found: Comparison) -> dict[str, ArmRow]:
    return {words: found.arms[name] for name, words in _words(found).items()}


def _words(found: Comparison) -> dict[str, str]:
    """Return what each row is called, in the order of the tables; a variant of a setting has no row."""
    return {name: claims.shown(name) for name in (*SHOWN, *found.arms) if name in found.arms and SIGN not in name}


def _exam_part(found: ExamOutcome, source: str) -> dict[str, Any]:
    pairs = [pair for pair in found.paired if pair.k == 1]
    first, *_ = found.arms[METHOD]
    return {
        "source": source,
        "about": claims.questions_of(source),
        "count": first.pass_at[1].n,
        "samples": found.samples,
        "table": exam_table(found),
        "figure": f"posttraining-{as_file_name(source)}",
        "others": {name: trained_as(name) for name in found.arms if name != METHOD},
        "steps": {one.step: {p.b: p for p in pairs if p.step == one.step} for one in found.arms[METHOD]},
        "along": {pair.b: pair for pair in found.along if pair.k == 1},
    }
