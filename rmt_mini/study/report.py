"""The report of a run: what was found, in plain sentences computed from the run folder, then the evidence.

A difference is called one only where its 95 % interval excludes zero; else the report says that it cannot be told.
Text that a model wrote reaches the page escaped, so that no Markdown or HTML in it takes effect.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics
from rmt_mini.stages.store import write_whole
from rmt_mini.study import plots

Json = Mapping[str, Any]
COLUMNS = (*TIERS, "average")
ROWS = {
    "plain, before": ("before", "ntp"),
    "thinking, before": ("before", "think"),
    "thinking, cold start": ("cold_start", "think"),
    "plain, after": ("after", "ntp"),
    "thinking, after": ("after", "think"),
}
FOLLOWED = 0.25  # a mean length within this share of the budget counts as following it
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # kinds of characters that steer instead of showing
SPAN = "{0:.1f} % [{1:.1f}, {2:.1f}]"


def write_report(folder: Path) -> str:
    """Write report.md and figures/*.png into a run folder; works for an interrupted run too.

    Args:
        folder: as DESIGN section 6 lays it out; run.json must be there.

    Returns:
        The table for the terminal.

    Raises:
        UserError: if the folder holds no run.json.
    """
    if not (folder / "run.json").exists():
        raise UserError(f"folder {str(folder)!r} holds no run.json; give the folder of a run")
    run, evaluation, samples = (_read(folder / f"{name}.json") for name in ("run", "evaluation", "samples"))
    config = {**RMTConfig().to_dict(), **run["config"]}
    known = [field.name for field in dataclasses.fields(StepMetrics)]
    metrics = [StepMetrics(**{name: line[name] for name in known}) for line in _lines(folder / "metrics.jsonl")]
    status = f"The run is {run['status']}, with {len(metrics)} of {config['steps']} steps recorded."
    parts = [
        f"# A run of RMT: preset {escape(config['preset'])}, seed {config['seed']}",
        *([] if run["status"] == "done" else [f"**{status}**"]),
        *findings(config, evaluation, metrics),
        *_accuracies(evaluation),
        *_figures(folder, config, evaluation, metrics),
        *_settings(config),
        *_timing(run.get("seconds", {}), metrics),
        *_pages(samples, list(_lines(folder / "rollouts.jsonl"))),
        *_origin(run),
        "## What this run cannot tell",
        "\n".join(f"- {limit}" for limit in limits(config, evaluation)),
    ]
    write_whole(folder / "report.md", "\n\n".join(parts) + "\n")
    return evaluation_table(evaluation) if evaluation else f"No evaluation. {status}"


def evaluation_table(evaluation: Json) -> str:
    """Lay out evaluation.json for a terminal, within 80 characters; each interval stands below its number.

    Args:
        evaluation: any of "before", "cold_start" and "after"; rows that are not there are left out.

    Returns:
        Aligned lines.
    """
    lines = [["next tokens right, %", *COLUMNS, "length", "closed"]]
    for name, row in _rows(evaluation):
        cells = [row[column] for column in COLUMNS]
        lines.append([name, *(_share(cell) for cell in cells), *_thoughts(row)])
        lines.append(["", *(_share(cell, "[{1:.0f}-{2:.0f}]") for cell in cells)])
    lines.append(["positions", *_positions(evaluation)])
    widths = (20, 10, 10, 10, 10, 8, 8)
    aligned = ("".join([f"{line[0]:<20}", *map(str.rjust, line[1:], widths[1:])]) for line in lines)
    note = "In brackets 95 % intervals; length: mean thought, tokens; closed: by itself."
    return "\n".join([*aligned, note])


def intervals_apart(one: Json, other: Json) -> bool:
    """Say whether two intervals have no point in common; touching is not apart.

    Example:
        >>> intervals_apart({"low": 0.1, "high": 0.2}, {"low": 0.3, "high": 0.4})
        True
        >>> intervals_apart({"low": 0.1, "high": 0.3}, {"low": 0.3, "high": 0.4})
        False
    """
    return bool(one["high"] < other["low"] or other["high"] < one["low"])


def escape(text: object, limit: int = 300) -> str:
    r"""Make any text safe inside a line or a table cell of Markdown; blanks at its ends and line ends become signs.

    Example:
        >>> print(escape(" a|b\n<i>"))
        ␣a&#124;b↵&lt;i&gt;
    """
    shown = str(text) if len(str(text)) <= limit else f"{str(text)[:limit]} …"
    shown = re.sub(r"\r\n?|\n", "↵", shown).replace("\t", "⇥")
    shown = re.sub(r"^ +| +$", lambda blanks: "␣" * len(blanks[0]), shown)
    shown = "".join("\ufffd" if unicodedata.category(one) in UNSEEN else one for one in shown)
    return re.sub(
        r"[`|*_\[\]~$\\@]|:(?=//)|(?<=www)\.", lambda sign: f"&#{ord(sign[0])};", html.escape(shown), flags=re.I
    )


def compare(evaluation: Json, one: Json, other: Json, paired: str) -> tuple[int, str]:
    """Say whether ``other`` lies above ``one`` (+1), below (-1), or it cannot be told (0), and put it in words.

    The paired difference of that name in evaluation["gain"] decides; where it is missing, the two intervals do.
    """
    gain = (evaluation.get("gain") or {}).get(paired) or {"difference": None}
    if gain["difference"] is None:
        apart = intervals_apart(one, other)
        sign = int(apart) * (1 if other["accuracy"] > one["accuracy"] else -1)
        change = 100 * (other["accuracy"] - one["accuracy"])
        return sign, f"{change:+z.1f} points, and the two intervals {_apart(one, other)}"
    sign = int(gain["low"] > 0) - int(gain["high"] < 0)
    change, low, high = (100 * gain[key] for key in ("difference", "low", "high"))
    words = f"{change:+z.1f} points [{low:+z.1f}, {high:+z.1f}] position by position, an interval that"
    return sign, f"{words} {'excludes' if sign else 'includes'} zero"


def findings(config: Json, evaluation: Json, metrics: Sequence[StepMetrics]) -> list[str]:
    """Say what was found, a paragraph each; ``evaluation`` is empty where the run did not get there."""
    cells = {name: row["average"] for name, row in _rows(evaluation) if row["average"]["accuracy"] is not None}
    said = ["**Nothing can be said about accuracy:** there is no evaluation before and after."]
    if {"thinking, before", "thinking, after"} <= cells.keys():
        said = list(_on_accuracy(config, evaluation, cells))
    return [*said, *_on_length(config, metrics), *_on_tokens(config, metrics)]


def _on_accuracy(config: Json, evaluation: Json, cells: Mapping[str, Json]) -> Iterator[str]:
    before, after, plain = (cells[name] for name in ("thinking, before", "thinking, after", "plain, after"))
    sign, words = compare(evaluation, before, after, "think_after_minus_before")
    verdict = ("Whether thinking improved cannot be told", "Thinking improved", "Thinking got worse")[sign]
    yield (
        f"**{verdict}.** After a thought {_share(before, SPAN)} of held-out next tokens were right before training, "
        f"{_share(after, SPAN)} after it; these intervals {_apart(before, after)}. The change is {words}."
    )
    stage = "RMT" if config["use_rl"] else "mid-training by next-token prediction alone"
    cold = cells.get("thinking, cold start")
    if cold:
        first = 100 * (cold["accuracy"] - before["accuracy"])
        sign, words = compare(evaluation, cold, after, "think_after_minus_cold_start")
        verdicts = ("whether that raised accuracy cannot be told", "that raised accuracy", "that lowered accuracy")
        yield (
            f"The cold start changed it by {first:+z.1f} points, to {_share(cold, SPAN)} (intervals before and "
            f"after it {_apart(before, cold)}). Then {stage} changed it by {words}: {verdicts[sign]}."
        )
    elif config["warmup_steps"]:
        yield f"Nothing was measured after the cold start, so its part and that of {stage} cannot be told apart."
    else:
        yield f"There was no cold start, so all of the change is that of {stage}."
    sign, words = compare(evaluation, plain, after, "think_minus_ntp_after")
    verdict = ("Whether thinking passes {} cannot be told", "Thinking passes {}", "Thinking stays below {}")[sign]
    yield (
        f"{verdict.format('plain next-token prediction')}: after training {_share(after, SPAN)} against "
        f"{_share(plain, SPAN)}, {words}. Plain prediction had {_share(cells['plain, before'], SPAN)} before training."
    )


def _on_length(config: Json, metrics: Sequence[StepMetrics]) -> Iterator[str]:
    if not metrics or not config["use_rl"]:
        yield "No thoughts were sampled in training, so nothing can be said about their length."
        return
    few = max(1, min(5, len(metrics) // 4))
    parts = (metrics[:few], metrics[-few:])
    ends = [(fmean(m.thought_length for m in part), fmean(m.budget for m in part)) for part in parts]
    followed = [abs(length - budget) <= max(1.0, FOLLOWED * budget) for length, budget in ends]
    verdict = {
        (True, True): "Thought length followed the budget",
        (True, False): "Thought length followed the budget at the start, but not at the end",
        (False, True): "Thought length did not follow the budget at the start, but did at the end",
        (False, False): "Thought length did not follow the budget",
    }[followed[0], followed[1]]
    (first, early), (last, late) = ends
    steps = "step" if few == 1 else f"{few} steps"
    if config["use_budget"]:
        yield (
            f"{verdict}: on average {first:.1f} tokens under a budget of {early:.1f} in the first {steps}, {last:.1f} "
            f"under {late:.1f} in the last. Within {100 * FOLLOWED:.0f} % of it, or one token, counts as followed."
        )
    else:
        yield f"No budget was stated. Thoughts had {first:.1f} tokens in the first {steps} and {last:.1f} in the last."


def _on_tokens(config: Json, metrics: Sequence[StepMetrics]) -> Iterator[str]:
    rl, ntp = sum(m.rl_tokens for m in metrics), sum(m.ntp_tokens for m in metrics)
    if not rl + ntp:
        return
    if config["use_ntp"] and config["ntp_weight"]:
        share = 100 * rl / (rl + ntp)
        yield f"{rl:,} tokens ({share:.0f} %) went to RL and {ntp:,} ({100 - share:.0f} %) to next-token prediction."
    else:
        yield f"All {rl:,} trained tokens went to RL; the next-token loss was measured, not trained."
    if config["use_rl"]:
        signal = 100 * fmean(m.signal_groups for m in metrics)
        yield f"On average {signal:.0f} % of the groups carried a match signal: some answers right, others wrong."


def limits(config: Json, evaluation: Json) -> list[str]:
    """Say what the run cannot tell, a sentence or two each."""
    rows = dict(_rows(evaluation))
    before, after = rows.get("thinking, before"), rows.get("thinking, after")
    said = [
        f"It is one run with one seed ({config['seed']}). Another seed gives other numbers, and how far off they would "
        "be is not known from here: the intervals cover the choice of held-out text only.",
        f"It is one model ({escape(config['model'])}) on one corpus ({escape(config['corpus'])}). The paper's models "
        "have 14 billion parameters; what holds here need not hold there.",
    ]
    if after and after["average"]["accuracy"] is not None:
        halves = [(c, 50 * (after[c]["high"] - after[c]["low"])) for c in COLUMNS if after[c]["accuracy"] is not None]
        said.append(
            f"{after['average']['n']} held-out positions with one thought each leave accuracy uncertain, in points: "
            f"{', '.join(f'{column} ±{half:.1f}' for column, half in halves)}. Smaller effects may be there unseen."
        )
    if before and after and before["budget"] != after["budget"]:
        said.append(
            f"Thinking was measured under a budget of {before['budget']} tokens before and {after['budget']} after: "
            "the change mixes what the model learned with the length it was allowed."
        )
    return said


def _accuracies(evaluation: Json) -> Iterator[str]:
    if not evaluation:
        return
    yield "## Accuracy"
    yield "Next tokens right, in %, with 95 % intervals. In the paper's words plain is NTP, and thinking before is NTR."
    cell = "{0:.1f} [{1:.1f}, {2:.1f}]"
    rows = [[name, *(_share(row[c], cell) for c in COLUMNS), *_thoughts(row)] for name, row in _rows(evaluation)]
    rows.append(["positions", *_positions(evaluation), "", ""])
    yield _table(["", *COLUMNS, "thought length, tokens", "closed by itself"], rows)
    gains = {name.replace("_", " "): gain for name, gain in (evaluation.get("gain") or {}).items()}
    points = [
        [name, *(f"{100 * gain[key]:+z.1f}" for key in ("difference", "low", "high"))]
        for name, gain in gains.items()
        if gain["difference"] is not None
    ]
    if points:
        yield "Differences of the averages, position by position, in points:"
        yield _table(["", "difference", "low", "high"], points)


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
        rows.append([f"`{field}`", told, helps.get(field, "")])
    yield _table(["setting", "value", "meaning"], rows)


def _timing(seconds: Json, metrics: Sequence[StepMetrics]) -> Iterator[str]:
    yield "## Time"
    rows = [[name.replace("_", " "), f"{value:.1f}"] for name, value in seconds.items()]
    yield _table(["stage", "seconds"], [*rows, ["total", f"{sum(seconds.values()):.1f}"]])
    if metrics:
        rollout, update = fmean(m.rollout_seconds for m in metrics), fmean(m.update_seconds for m in metrics)
        memory = max(m.peak_memory_mb for m in metrics)
        yield f"A step took {rollout:.2f} s to roll out and {update:.2f} s to update; peak memory was {memory:,.0f} MB."


def _pages(samples: Json, rollouts: Sequence[Json]) -> Iterator[str]:
    yield "## Rollouts, as the model wrote them"
    yield "␣ stands for a blank at an end, ↵ for a line end." if samples or rollouts else "None were recorded."
    if samples:
        keyed = (
            [((one["document"], one.get("index", one.get("position"))), one) for one in samples[when]]
            for when in ("before", "after")
        )
        before, after = map(dict, keyed)
        rows = [[_place(one), _said(before.get(key)), _said(after.get(key))] for key, one in (before | after).items()]
        yield "The same held-out positions before and after training:"
        yield _table(["position", "before", "after"], rows)
    if rollouts:
        ends = sorted({rollouts[0]["step"], rollouts[-1]["step"]})
        chosen = [one for end in ends for one in [line for line in rollouts if line["step"] == end][:4]]
        rows = [[f"{one['step']}", _place(one), _said(one), f"{one['reward']:.2f}"] for one in chosen]
        yield "In training, at the first and the last recorded step:"
        yield _table(["step", "position", "rollout", "reward"], rows)


def _place(line: Json) -> str:
    where = f"{TIERS[line['tier']]}, {line['entropy']:.1f} nats<br>…{_code(line['context'])}"
    return f"{where}<br>next: {_code(line['truth'])}"


def _said(line: Json | None) -> str:
    if line is None:
        return "-"
    ended = f"({'closed' if line['closed'] else 'cut off at the cap'}, budget {line['budget']})"
    answer = f"answer {_code(line['answer'])}: {'right' if line['match'] else 'wrong'}"
    return f"{_code(line['thought'])} {ended}<br>{answer}"


def _code(text: object, limit: int = 300) -> str:
    return f"<code>{escape(text, limit)}</code>" if text else "(nothing)"


def _origin(run: Json) -> Iterator[str]:
    yield "## Where this run comes from"
    names = ("command", "status", "error", "start", "end", "machine", "versions", "corpus_digest", "model_digest")
    found = {name.replace("_", " "): run[name] for name in names if name in run}
    flat = {k: ", ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v for k, v in found.items()}
    yield _table(["", ""], [[name, _code(value, limit=1000)] for name, value in flat.items()])


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the empty end, or half a line that an interrupted run left
            return


def _rows(evaluation: Json) -> Iterator[tuple[str, Json]]:
    yield from ((name, evaluation[when][how]) for name, (when, how) in ROWS.items() if evaluation.get(when))


def _apart(one: Json, other: Json) -> str:
    return "lie apart" if intervals_apart(one, other) else "overlap"


def _share(cell: Json, form: str = "{0:.1f}") -> str:
    known = cell["accuracy"] is not None
    return form.format(*(100 * cell[key] for key in ("accuracy", "low", "high"))) if known else "-"


def _thoughts(row: Json) -> list[str]:
    return [f"{row['thought_length']:.1f}", f"{100 * row['closed_share']:.0f} %"] if row["budget"] else ["-", "-"]


def _positions(evaluation: Json) -> list[str]:
    return [str(row[column]["n"]) for _, row in list(_rows(evaluation))[:1] for column in COLUMNS]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
