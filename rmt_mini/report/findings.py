"""What a run found and what it cannot tell, in plain sentences computed from its numbers.

A difference is called one only where its 95 % interval excludes zero; else the sentence says that it cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics
from rmt_mini.report.markdown import escape

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
SPAN = "{0:.1f} % [{1:.1f}, {2:.1f}]"


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


def findings(config: Json, evaluation: Json, metrics: Sequence[StepMetrics] | None) -> list[str]:
    """Say what was found, a paragraph each.

    Args:
        config: all settings.
        evaluation: as in evaluation.json; empty where the run did not get there.
        metrics: of the run's steps; None leaves out what only they tell.
    """
    cells = {name: row["average"] for name, row in rows_of(evaluation) if row["average"]["accuracy"] is not None}
    said = ["**Nothing can be said about accuracy:** there is no evaluation before and after."]
    if {"thinking, before", "thinking, after"} <= cells.keys():
        said = list(_on_accuracy(config, evaluation, cells))
    said += _on_sorts(evaluation)
    return said if metrics is None else [*said, *_on_length(config, metrics), *_on_tokens(config, metrics)]


def _on_accuracy(config: Json, evaluation: Json, cells: Mapping[str, Json]) -> Iterator[str]:
    before, after, plain = (cells[name] for name in ("thinking, before", "thinking, after", "plain, after"))
    sign, words = compare(evaluation, before, after, "think_after_minus_before")
    verdict = ("Whether thinking improved cannot be told", "Thinking improved", "Thinking got worse")[sign]
    yield (
        f"**{verdict}.** After a thought {share(before, SPAN)} of held-out next tokens were right before training, "
        f"{share(after, SPAN)} after it; these intervals {_apart(before, after)}. The change is {words}."
    )
    stage = "RMT" if config["use_rl"] else "mid-training by next-token prediction alone"
    cold = cells.get("thinking, cold start")
    if cold:
        first = 100 * (cold["accuracy"] - before["accuracy"])
        sign, words = compare(evaluation, cold, after, "think_after_minus_cold_start")
        verdicts = ("whether that raised accuracy cannot be told", "that raised accuracy", "that lowered accuracy")
        yield (
            f"The cold start changed it by {first:+z.1f} points, to {share(cold, SPAN)} (intervals before and "
            f"after it {_apart(before, cold)}). Then {stage} changed it by {words}: {verdicts[sign]}."
        )
    elif config["warmup_steps"]:
        yield f"Nothing was measured after the cold start, so its part and that of {stage} cannot be told apart."
    else:
        yield f"There was no cold start, so all of the change is that of {stage}."
    sign, words = compare(evaluation, plain, after, "think_minus_ntp_after")
    verdict = ("Whether thinking passes {} cannot be told", "Thinking passes {}", "Thinking stays below {}")[sign]
    yield (
        f"{verdict.format('plain next-token prediction')}: after training {share(after, SPAN)} against "
        f"{share(plain, SPAN)}, {words}. Plain prediction had {share(cells['plain, before'], SPAN)} before training."
    )


def _on_sorts(evaluation: Json) -> Iterator[str]:
    """Say what thinking did where a short calculation settles the token; only a generated text knows where."""
    rows = dict(rows_of(evaluation))
    gain = (evaluation.get("gain") or {}).get("calculable_think_after_minus_ntp_before")
    if not gain or not {"plain, before", "thinking, before", "thinking, after"} <= rows.keys():
        return
    names = ("plain, before", "thinking, before", "thinking, after")
    plain, first, last = (rows[name]["sorts"]["calculable"] for name in names)
    verdict = ("cannot be told from", "passes", "stays below")[int(gain["low"] > 0) - int(gain["high"] < 0)]
    change, low, high = (100 * gain[key] for key in ("difference", "low", "high"))
    yield (
        f"**Where a short calculation settles the token, thinking after training {verdict} plain prediction before "
        f"it:** {share(last, SPAN)} against {share(plain, SPAN)}, {change:+z.1f} points [{low:+z.1f}, {high:+z.1f}] "
        f"position by position. Untrained thinking had {share(first, SPAN)} there. These thoughts had "
        f"{first['thought_length']:.1f} tokens before training and {last['thought_length']:.1f} after it, a change of "
        f"{_change(evaluation['length_change']['calculable'])}."
    )


def _change(length: Json) -> str:
    if length["low"] is None:
        return f"{length['difference']:+z.1f}"
    return "{:+z.1f} [{:+z.1f}, {:+z.1f}]".format(*(length[key] for key in ("difference", "low", "high")))


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
    rows = dict(rows_of(evaluation))
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


def intervals_apart(one: Json, other: Json) -> bool:
    """Say whether two intervals have no point in common; touching is not apart.

    Example:
        >>> intervals_apart({"low": 0.1, "high": 0.2}, {"low": 0.3, "high": 0.4})
        True
        >>> intervals_apart({"low": 0.1, "high": 0.3}, {"low": 0.3, "high": 0.4})
        False
    """
    return bool(one["high"] < other["low"] or other["high"] < one["low"])


def rows_of(evaluation: Json) -> Iterator[tuple[str, Json]]:
    """Yield the rows that were measured, by their names."""
    yield from ((name, evaluation[when][how]) for name, (when, how) in ROWS.items() if evaluation.get(when))


def _apart(one: Json, other: Json) -> str:
    return "lie apart" if intervals_apart(one, other) else "overlap"


def share(cell: Json, form: str = "{0:.1f}") -> str:
    """Show a cell's accuracy, low and high in %, or a dash where nothing was asked."""
    known = cell["accuracy"] is not None
    return form.format(*(100 * cell[key] for key in ("accuracy", "low", "high"))) if known else "-"
