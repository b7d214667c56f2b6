"""Reports: what was found first, then the evidence; typed files in, report.md and figures out. Runs nothing.

The pages are templates (``templates/*.md.j2``). Text that a model wrote passes the filters ``escape`` or ``code``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmt_mini import files
from rmt_mini.arms import MAIN
from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.files import ArmRow, Comparison, Evaluation, ExamOutcome, ExamStep, Notes, RolloutLine, Variant
from rmt_mini.records import StepMetrics
from rmt_mini.report import claims, plots
from rmt_mini.report.claims import SHOWN, SYMBOLS, findings, rows_of, trained_as
from rmt_mini.report.comparison import SIGN, across_seeds
from rmt_mini.report.markdown import macro, render
from rmt_mini.report.plots import Figured
from rmt_mini.report.plots.canvas import LOOKS
from rmt_mini.stages.preflight import agreement
from rmt_mini.worlds.questions import as_file_name

TABLES = "tables.md.j2"


def write_report(folder: Path) -> str:
    """Write report.md and ``figures/*.png`` into a run folder, also of an interrupted run; return the table."""
    notes, found = Notes.read(folder), Evaluation.find(folder)
    config, evaluation = notes.settings, found or Evaluation()
    steps = files.read_lines(folder / "metrics.jsonl", StepMetrics)
    rollouts = files.read_lines(folder / "rollouts.jsonl", RolloutLine)
    samples = files.Samples.find(folder) or files.Samples()
    status = f"The run is {notes.status}, with {len(steps.good)} of {config.steps} steps recorded."
    before, after = ({(one.document, one.position): one for one in part} for part in (samples.before, samples.after))
    ends = sorted({line.step for line in (rollouts.good[:1] + rollouts.good[-1:])})
    _write(
        folder,
        "run.md.j2",
        _run_figures(config, found, steps.good),
        notes=notes,
        metrics=steps.good,
        config=config,
        status="" if (notes.status, len(steps.good)) == ("done", config.steps) else status,
        skipped={"metrics.jsonl": steps.skipped, "rollouts.jsonl": rollouts.skipped},
        findings=findings(config, evaluation, steps.good),
        evaluation=evaluation,
        rows=rows_of(evaluation),
        preflight=files.Preflight.find(folder),
        agreement=agreement,
        fields=RMTConfig.model_fields,
        base=preset(config.preset) if config.preset in PRESETS else RMTConfig(),
        presets=PRESETS,
        samples=[(before.get(key), after.get(key)) for key in before | after],
        rollouts=[line for end in ends for line in [one for one in rollouts.good if one.step == end][:4]],
    )
    return evaluation_table(found) if found else f"No evaluation. {status}"


def write_exam_report(folder: Path) -> str:
    """Write report.md and figures of a post-training run; returns the terminal's table."""
    notes, evaluation, metrics = Notes.read(folder), files.ExamEvaluation.read(folder), files.read_metrics(folder)
    figures = {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)}
    _write(folder, "exam.md.j2", figures, notes=notes, evaluation=evaluation, metrics=metrics)
    return macro(TABLES, "exam_run", evaluation)


def write_seeds_report(folders: Sequence[Path], out: Path) -> str:
    """Write what runs that differ in their seed say together into a free folder; returns the table."""
    files.require_free(out)
    evaluation, notes = across_seeds(folders), Notes.read(folders[0])
    config = notes.settings
    out.mkdir(parents=True, exist_ok=True)
    evaluation.write(out)
    given = {"config": config, "evaluation": evaluation, "rows": rows_of(evaluation), "overlap": notes.overlap}
    figures = {"accuracy": plots.accuracy(evaluation)}
    _write(out, "seeds.md.j2", figures, "", **given, findings=findings(config, evaluation, None))
    return evaluation_table(evaluation)


def write_comparison_report(
    folder: Path, found: Comparison, exams: Mapping[str, ExamOutcome] | None = None, variants: Sequence[Variant] = ()
) -> str:
    """Write report.md and figures of a comparison, and its exams; returns the table of accuracies, or of variants."""
    exams, table = exams or {}, macro(TABLES, "variants", variants, SYMBOLS) if variants else accuracy_table(found)
    figures = {"arms": plots.arms(_shown(found))}
    words = _words(found)
    learned = {name: found.arms[name].curves.get("average", {}) for name in words}
    # more steps would leave the others no room
    drawn = [name for name, curve in learned.items() if curve and max(curve) <= found.config.steps]
    crowded = len(drawn) > len(LOOKS)  # some would look alike
    curves = {words[name]: learned[name] for name in drawn if name in MAIN or not crowded}
    if curves and not variants:
        figures["curves"] = plots.levels(curves, "step", "next tokens right")
    for source, exam in exams.items():
        figures[f"posttraining-{as_file_name(source)}"] = plots.exam_curves(_trained(exam))
    if variants:
        figures["sensitivity"] = plots.tornado(variants)
    _write(
        folder,
        "comparison.md.j2",
        figures,
        found=found,
        crowded=crowded,
        arms=_shown(found),
        words=words,
        symbols=SYMBOLS,
        claims=claims.corrected(claims.claims(found)),
        exam_claims=claims.corrected([one for source in exams for one in claims.exam_claims(exams[source], source)]),
        exams={source: (exam, exam_table(exam)) for source, exam in exams.items()},
        questions_of=claims.questions_of,
        trained_as=trained_as,
        as_file_name=as_file_name,
        variants=variants,
        moved=claims.moved(variants),
        table=table,
        paper=paper_table(),
        paper_exams=paper_exam_table(),
    )
    return table


def write_map_report(folder: Path, plan: files.OverPlan, made: files.Map) -> str:
    """Write report.md and figures of comparisons over the values of a setting; returns the table of averages."""
    tables, figures = dict[str, str](), dict[str, Figured]()
    for what, level in made.levels.items():
        tables[what] = macro(TABLES, "over", plan.field, level, claims.names_at(what))
        figures["map" if what == "average" else f"map-{what}"] = plots.over(level, plan.field, what)
    _write(folder, "map.md.j2", figures, plan=plan, levels=made.levels, tables=tables, trained_as=trained_as)
    return tables["average"]


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


def exam_table(found: ExamOutcome) -> str:
    """Lay out pass@1 and pass@k before and after post-training."""
    return macro(TABLES, "exams", _trained(found), sorted({1, found.samples}))


def paper_exam_table() -> str:
    """Lay out the paper's results after post-training."""
    return macro(TABLES, "paper_exams", {trained_as(name): values for name, values in claims.PAPER_EXAMS.items()})


def evaluation_table(evaluation: Evaluation) -> str:
    """Lay out evaluation.json for a terminal, within 80 characters; each interval is below its number."""
    return macro(TABLES, "terminal", rows_of(evaluation))


def _run_figures(
    config: RMTConfig, evaluation: Evaluation | None, metrics: Sequence[StepMetrics]
) -> dict[str, Figured]:
    figures = {"accuracy": plots.accuracy(evaluation)} if evaluation else {}
    if metrics and config.use_rl:
        figures["budget_and_length"] = plots.budget_and_length(metrics, config.use_budget)
        figures["tiers_drawn"] = plots.tiers_drawn(metrics, config.use_curriculum)
        figures |= {"rewards": plots.rewards(metrics), "signal": plots.signal(metrics)}
    return figures | {"losses": plots.losses(metrics)}


def _write(folder: Path, template: str, figures: Mapping[str, Figured], beside: str = "figures", **given: Any) -> None:
    """Write report.md, and its figures into the folder ``beside`` it."""
    for name, figured in figures.items():
        plots.save(figured, folder / beside / f"{name}.png")
    files.write_keeping(folder / "report.md", render(template, figures=figures, **given))


def _words(found: Comparison) -> dict[str, str]:
    """Return what each row is called, in the order of the tables; a variant of a setting has no row."""
    return {name: claims.shown(name) for name in (*SHOWN, *found.arms) if name in found.arms and SIGN not in name}


def _shown(found: Comparison) -> dict[str, ArmRow]:
    return {words: found.arms[name] for name, words in _words(found).items()}


def _trained(found: ExamOutcome) -> dict[str, list[ExamStep]]:
    return {trained_as(name): steps for name, steps in found.arms.items()}
