"""Text with marks: entropy over tokens, bytes beside bytes, thoughts beside thoughts, tokens by their loss.

The HTML is templates/marked.html.j2. Every coloured piece sets its own ink and ground, so that a dark page changes
nothing, and an underline, a raised number or a sign says the same as the colour.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rmt_mini.method import ntp_mask, prefix_match_reward
from rmt_mini.report.markdown import macro, render, words
from rmt_mini.report.plots.canvas import Drawing, Marked, Numbers
from rmt_mini.report.plots.of_results import tiers_of

__all__ = [
    "BOTH", "DOWN", "NONE", "NTP", "RL", "UP", "by_loss", "byte_match", "heat_map", "pipeline", "question",
    "rollout_table", "who_learns",
]  # fmt: skip
NAMED = 6  # tokens that a heat map's words name
LONGEST = 28  # bytes of a text that are laid out
RL, NTP, BOTH, UP, DOWN, NONE = "RL", "NTP", "RL and NTP", "up", "down", "none"


def heat_map(tokens: Sequence[str], entropies: Numbers, thresholds: Sequence[float] | None = None) -> Marked:
    """Shade the tokens of a text but the first by entropy (nats); or, if thresholds are given, by tier."""
    if not entropies or len(entropies) != len(tokens) - 1:
        raise ValueError(f"{len(tokens)} tokens need {len(tokens) - 1} entropies, at least one; given {len(entropies)}")
    rest = list(zip(tokens[1:], entropies, tiers_of(entropies, thresholds or (0.0, 0.0)), strict=True))
    alt = words("heat_map", rest, thresholds, NAMED)
    return Marked(_html("heat_map", tokens[0], rest, thresholds is not None), alt)


def pipeline(*parts: str) -> Drawing:
    """Draw the method: three stages, one step of mid-training, its document tree; ``parts`` of it stand out.

    Example:
        >>> pipeline("budget").alt[-35:]
        'Highlighted here: State the budget.'
    """
    svg = render("pipeline.svg.j2", parts=parts)
    titles = dict(re.findall(r'<g id="([\w-]+)">.*?font-weight="bold">([^<]+)<', svg, re.DOTALL))
    if unknown := [part for part in parts if part not in titles]:
        raise ValueError(f"the picture has no part {unknown[0]!r}; its parts are {', '.join(titles)}")
    return Drawing(svg, words("pipeline", [titles[part] for part in parts]))


def byte_match(answer: str, continuation: str, boundaries: Sequence[int]) -> Marked:
    """Lay an answer's bytes under those of the text from there on, whose tokens end at the byte ``boundaries``."""
    reward = prefix_match_reward(answer, continuation, boundaries)
    mine, true = (text.encode("utf-8", errors="surrogatepass") for text in (answer, continuation))
    width = min(LONGEST, max(len(mine), len(true)))
    differ = [n for n, byte in enumerate(mine) if n >= len(true) or byte != true[n]]
    rows = [(name, [*line[:width], *[None] * (width - len(line))]) for name, line in (("text", true), ("answer", mine))]
    alt = words("byte_match", reward, len(mine), len(true), differ, boundaries)
    return Marked(_html("byte_match", rows, differ, len(mine), boundaries), alt)


def question(tokens: Sequence[str], index: int) -> Marked:
    """Show a text as tokens up to a position, and the position itself as a question."""
    if not 1 <= index < len(tokens):
        raise ValueError(f"position {index} cannot be asked for; in this text 1 to {len(tokens) - 1} can")
    alt = f"Token {index} of “{''.join(tokens[:index])}”, and then? It is “{tokens[index]}”."
    return Marked(_html("question", tokens[:index], tokens[index], index), alt)


def rollout_table(rows: Sequence[Mapping[str, Any]]) -> Marked:
    """Show rollouts, as rollouts.jsonl has them, with "when" for whose they are, below what they were asked."""
    if not rows:
        raise ValueError("there is no rollout to show")
    asked = [(key, list(same)) for key, same in groupby(rows, key=lambda row: (row["context"], row["truth"]))]
    return Marked(_html("rollout_table", asked), words("rollout_table", rows), role="group")


def by_loss(tokens: Sequence[str], marks: Sequence[str], what: str) -> Marked:
    """Write tokens, each with its mark: RL, UP, DOWN, NTP, BOTH or NONE; ``what`` is said before their counts."""
    counts = {mark: list(marks).count(mark) for mark in (RL, UP, DOWN, NTP, BOTH, NONE) if mark in marks}
    pairs = groupby(zip(tokens, marks, strict=True), key=lambda pair: pair[1])
    runs = [(mark, [token for token, _ in same]) for mark, same in pairs]
    counted = ", ".join(f"{mark} {count}" for mark, count in counts.items())
    return Marked(_html("by_loss", runs, list(counts)), f"{what} Tokens by the loss that trains them: {counted}.")


def who_learns(tokens: Sequence[str], chosen: Sequence[int], leak: bool = False) -> Marked:
    """Mark the tokens of a document by the loss that each takes; ``leak`` counts C in the next-token loss as well."""
    ntp = ntp_mask(len(tokens), [] if leak else chosen).tolist()
    kinds = {(True, True): BOTH, (True, False): RL, (False, True): NTP, (False, False): NONE}
    marks = [kinds[place in chosen, ntp[place]] for place in range(len(tokens))]
    named = ", ".join(f"{place} “{tokens[place].strip()}”" for place in sorted(chosen)) or "none"
    return by_loss(tokens, marks, f"A document of {len(tokens)} tokens; chosen: {named}.")


def _html(name: str, *values: object) -> str:
    return macro("marked.html.j2", name, *values)
