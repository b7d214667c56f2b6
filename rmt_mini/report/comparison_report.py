"""The report of a comparison: its claims first, then its tables in the paper's layout beside the paper's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmt_mini.arms import BASE, METHOD
from rmt_mini.files import Record, write_keeping
from rmt_mini.method.entropy import TIERS
from rmt_mini.report import plots
from rmt_mini.report.claims import (
    PAPER,
    PAPER_LENGTHS,
    SHOWN,
    claims,
    exam_claims,
    ordered,
    points,
    questions_of,
    trained_as,
)
from rmt_mini.report.findings import COLUMNS, share
from rmt_mini.report.markdown import escape, table
from rmt_mini.report.sensitivity import sensitivity_lines, sensitivity_table
from rmt_mini.worlds.questions import as_file_name

Json = Mapping[str, Any]
ENDS = ("before", "after")
CELL = "{0:.1f} [{1:.1f}, {2:.1f}]"
# after GRPO on Skywork maths, before and after, %: R1-14B and what its mid-training made of it; Qwen3-14B likewise
PAPER_EXAMS = {
    "base": ((23.00, 51.00), (12.84, 54.17)),
    "rpt": ((23.17, 48.50), None),
    "rmt": ((24.08, 54.67), (25.17, 64.33)),
}


def write_comparison_report(
    folder: Path, found: Any, posttraining: Any = None, variants: Sequence[dict[str, Any]] = ()
) -> str:
    """Write report.md of a comparison, and its figures.

    Args:
        folder: of the comparison.
        found: as ``compare_runs`` returns it, with "config" and "seeds".
        posttraining: source of the questions -> as ``read_exams`` returns it, where exams were sat.
        variants: as ``sensitivities`` returns them, where there are any.

    Returns:
        The table for the terminal: of accuracies, or of the variants.
    """
    found, posttraining = (_plain(one) for one in (found, posttraining))
    figured = plots.arms({SHOWN[name]: arm for name, arm in _ordered(found["arms"])})
    plots.save(figured, folder / "figures" / "arms.png")
    said = claims(found)
    after: list[str] = []
    for source, exam in (posttraining or {}).items():
        said = ordered([*said, *exam_claims(exam, source)])
        parts, curves = exam_parts(exam, source)
        after += parts
        plots.save(curves, folder / "figures" / figure_of(source))
    if variants:
        tornado = plots.tornado(variants)
        plots.save(tornado, folder / "figures" / "sensitivity.png")
        after += [
            "## Sensitivity",
            "One setting at a time; a variant minus the method, position by position.",
            sensitivity_table(variants),
            f"![{tornado.alt}](figures/sensitivity.png)",
        ]
    config, seeds = found["config"], found["seeds"]
    tables = accuracy_tables(found)
    longer = [arm for name, arm in found["arms"].items() if name == "ntp-equal-compute"]
    other = "".join(f" ({SHOWN['ntp-equal-compute']}: {arm['compute']['steps']:,.0f})" for arm in longer)
    title = "RMT, one setting changed at a time" if variants else "RMT, its baseline, ablations and controls"
    lines = [*(claim.line() for claim in said), *sensitivity_lines(variants)]
    if len(seeds) > 1:
        count, told = f"{len(seeds)} seeds", ", ".join(map(str, seeds))
        drawn = f"over {count} ({told}) and the held-out documents, both drawn anew; with few seeds their part is "
        drawn += "known roughly, and one base model serves them all."
    else:
        count, drawn = "1 seed", f"over the held-out documents; there is one seed, {seeds[0]}."
        lines.insert(0, "**One seed:** how far two runs part by the luck of training is in no interval.")
    parts = [
        f"# {title}: preset {escape(config['preset'])}, text {escape(config['corpus'])}, {count}",
        "\n".join(f"- {line}" for line in lines),
        f"Every arm took {config['steps']} steps on the same documents{other}. Intervals are 95 % bootstrap intervals "
        + drawn,
        "## Accuracy",
        *tables,
        f"![{figured.alt}](figures/arms.png)",
        "## Differences, position by position",
        difference_table(found),
        "## What it took",
        compute_table(found),
        "Operations: 2 per parameter and token forward, 4 more backward. Seconds are those of the steps, on the "
        "machine that comparison.json names, with other runs beside them.",
        "## Where it went",
        ledger_table(found),
        "RL is what went to thoughts and answers: sampling them and training on them. The rest went to the documents, "
        "each read once a step for next-token prediction and as the prefix of every thought, and in seconds to the "
        "optimizer. Tokens are those trained on.",
        *after,
    ]
    write_keeping(folder / "report.md", "\n\n".join(parts) + "\n")
    return sensitivity_table(variants) if variants else tables[1]


def accuracy_tables(found: Json) -> list[str]:
    """Lay out accuracies in the paper's layout, ours and below it the paper's."""
    head = ["next tokens right, %", *COLUMNS, "thought length"]
    ours = [
        [SHOWN[name], *(share(arm[column], CELL) for column in COLUMNS), _length(arm)]
        for name, arm in _ordered(found["arms"])
    ]
    theirs = [
        [
            SHOWN[name],
            *(f"{value:.2f}" for value in values),
            f"{PAPER_LENGTHS[name]:.0f}" if name in PAPER_LENGTHS else "",
        ]
        for name, values in PAPER.items()
    ]
    parts = ["Ours:", table(head, ours)]
    sorts = {name: arm["sorts"] for name, arm in _ordered(found["arms"]) if arm.get("sorts")}
    if sorts:
        names = list(next(iter(sorts.values())))
        rows = [[SHOWN[name], *(share(row[sort], CELL) for sort in names)] for name, row in sorts.items()]
        parts += ["By sort of token, which the generated text knows:", table(["%", *names], rows)]
    return [*parts, "The paper's (R1-Distill-Qwen-14B on OmniMATH; no intervals are given):", table(head, theirs)]


def difference_table(found: Json) -> str:
    """Lay out RMT minus every other row, by tier."""
    cells = {(one["b"], one["tier"]): one for one in found["paired"]}
    rows = []
    for name, _ in _ordered(found["arms"]):
        if name != METHOD:
            columns = (cells[name, column] for column in COLUMNS)
            rows.append([SHOWN[name], *(points(cell) for cell in columns)])
    return table(["RMT minus ..., points", *COLUMNS], rows)


def compute_table(found: Json) -> str:
    """Lay out what the arms took, and what each predicts without a thought."""
    rows = []
    for name, took, arm in _trained(found):
        rows.append(
            [
                SHOWN[name],
                f"{took['steps']:.0f}",
                f"{took['rl_tokens']:,.0f}",
                f"{took['ntp_tokens']:,.0f}",
                f"{took['operations'] / 1e12:.2f}",
                f"{took['seconds']:.0f}",
                f"{took['cold_start_seconds']:.0f}",
                share(arm["plain"]["average"], CELL),
            ]
        )
    head = [
        "a run, mean over seeds", "steps", "RL tokens", "NTP tokens", "10^12 operations", "seconds", "and cold start",
        "plain, %",
    ]  # fmt: skip
    return table(head, rows)


def ledger_table(found: Json) -> str:
    """Lay out which share of tokens, operations and seconds went to RL, and how RL's tokens fall on the tiers."""
    rows = []
    for name, took, _ in _trained(found):
        by_tier, rl = took["rl_tokens_by_tier"], took["rl_tokens"]
        parts = [
            (rl, rl + took["ntp_tokens"]),
            (took["rl_operations"], took["operations"]),
            (took["rl_seconds"], took["seconds"]),
            *((tokens, rl) for tokens in by_tier),
        ]
        rows.append([SHOWN[name], *(f"{100 * part / whole:.0f} %" if whole else "-" for part, whole in parts)])
    head = ["share of RL in", "tokens", "operations", "seconds", *(f"RL tokens: {tier}" for tier in TIERS)]
    return table(head, rows)


def _plain(found: Any) -> Any:
    return found.model_dump(mode="json", exclude_unset=True) if isinstance(found, Record) else found


def exam_table(found: Any) -> str:
    """Lay out pass@1 and pass@k before and after post-training."""
    found = _plain(found)
    k = str(found["samples"])
    ks = list(dict.fromkeys(("1", k)))
    rows = []
    for name, curve in found["arms"].items():
        first, last = curve[0], curve[-1]
        cells = [share(one["pass_at"][k], CELL) for k in ks for one in (first, last)]
        rows.append([trained_as(name), *cells, *(f"{one['thought_length']:.1f}" for one in (first, last))])
    heads = [f"{what} {when}" for what in (*(f"pass@{k}, %," for k in ks), "thought length") for when in ENDS]
    return table(["mid-trained as", *heads], rows)


def figure_of(source: str) -> str:
    """Return the file name of an exam's curves."""
    return f"posttraining-{as_file_name(source)}.png"


def exam_parts(found: Json, source: str) -> tuple[list[str], plots.Figured]:
    """Lay out everything about post-training for report.md, and draw its curves."""
    curves = {
        trained_as(name): [{"step": one["step"], **one["pass_at"]["1"]} for one in curve]
        for name, curve in found["arms"].items()
    }
    figured = plots.exam_curves(curves)
    rows = []
    for step in [one["step"] for one in found["arms"][METHOD]]:
        pairs = {pair["b"]: pair for pair in found["paired"] if pair["step"] == step and pair["k"] == 1}
        rows.append([str(step), *(points(pair) for pair in pairs.values())])
    rows.append(["mean behind 0", *(points(pair) for pair in found["along"] if pair["k"] == 1)])
    others = [trained_as(name) for name in found["arms"] if name != METHOD]
    theirs = [
        [trained_as(name), *("-" if one is None else f"{one[0]:.2f} -> {one[1]:.2f}" for one in values)]
        for name, values in PAPER_EXAMS.items()
    ]
    cell = found["arms"][METHOD][0]["pass_at"]["1"]
    parts = [
        f"## Post-training: {questions_of(source)}",
        f"GRPO on questions ({source}), the same for every model of a seed; {cell['n']} held-out ones over all seeds, "
        f"{found['samples']} answers to each. Intervals draw seeds and questions anew.",
        exam_table(found),
        f"![{figured.alt}](figures/{figure_of(source)})",
        "Whether a gain lasts: RMT minus the others in pass@1, points, by step of post-training:",
        table(["step", *others], rows),
        "The paper's (GRPO on Skywork maths, %, before -> after; no intervals are given):",
        table(["mid-trained as", "R1-Distill-Qwen-14B", "Qwen3-14B"], theirs),
    ]
    return parts, figured


def _length(arm: Json) -> str:
    low, high = arm["thought_length_interval"]
    return "-" if arm["row"] == "ntp" else f"{arm['thought_length']:.1f} [{low:.1f}, {high:.1f}]"


def _ordered(arms: Json) -> list[tuple[str, Json]]:
    return [(name, arms[name]) for name in SHOWN if name in arms]


def _trained(found: Json) -> Iterator[tuple[str, Json, Json]]:
    yield from ((name, arm["compute"], arm) for name, arm in _ordered(found["arms"]) if name not in BASE)
