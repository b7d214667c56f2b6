"""Text with marks: entropy over tokens, bytes beside bytes, thoughts beside thoughts.

What is text stays text, as HTML with its words beside it. Every coloured piece sets its own ink and ground, so that a
dark page changes nothing, and what colour tells is told by an underline, a raised number or a sign too.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from rmt_mini.method.entropy import TIERS
from rmt_mini.method.rewards import prefix_match_reward
from rmt_mini.report.plots.canvas import BLUE, ORANGE, PURPLE, RED, Figured, Numbers
from rmt_mini.report.plots.of_entropy import tally, tiers_of

REACH = 2.5  # nats at which a heat map is at its darkest
NAMED = 6  # tokens that a heat map's words name
LONGEST = 28  # bytes of a text that are laid out
UNDERLINES = ("none", "underline dotted", "underline double")  # of easy, medium, hard
_PAGE = "background: #fff; color: #000; padding: 0.6em 0.8em; line-height: 1.9; overflow-wrap: anywhere"
_CELL = "border: 1px solid #999; padding: 0.2em 0.5em; text-align: left; vertical-align: top"


@dataclass(frozen=True)
class Marked:
    """Text with marks, and what is to be seen of them in words.

    Attributes:
        body: HTML, escaped by whoever made it.
        alt: the words.
        role: "img" where only the marks matter; "group" where the text itself is to be read.

    Example:
        >>> Marked("<b>a</b>", "An a.")._repr_html_()[:36]
        '<div role="img" aria-label="An a." s'
    """

    body: str
    alt: str
    role: str = "img"

    def _repr_html_(self) -> str:
        return f'<div role="{self.role}" aria-label="{html.escape(self.alt)}" style="{_PAGE}">{self.body}</div>'


@dataclass(frozen=True)
class Stack:
    """Several things one above the other; ``stacked`` makes it."""

    parts: Sequence[Figured | Marked]

    @property
    def alt(self) -> str:
        """The words of all of them."""
        return " ".join(part.alt for part in self.parts)

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)


def stacked(*parts: Figured | Marked) -> Stack:
    """Put figures and marked text one above the other.

    Example:
        >>> stacked(Marked("a", "One."), Marked("b", "Two.")).alt
        'One. Two.'
    """
    return Stack(parts)


def heat_map(tokens: Sequence[str], entropies: Numbers, thresholds: Sequence[float] | None = None) -> Marked:
    """Shade the tokens of a text by entropy; or, where thresholds are given, by tier.

    Args:
        tokens: as text, in order; the first is not predicted, and so is not shaded.
        entropies: of all tokens but the first, nats.
        thresholds: two, nats, as ``assign_tiers`` takes them.

    Raises:
        ValueError: if there is not one entropy for each token behind the first, or as ``assign_tiers``.

    Example:
        >>> heat_map(["A", " lift", " waits"], [1.25, 0.0], (0.5, 1.9)).alt
        'Of 2 tokens 1 is easy (up to 0.50 nats), 1 medium and 0 hard (above 1.90 nats).'
    """
    if not entropies or len(entropies) != len(tokens) - 1:
        raise ValueError(f"{len(tokens)} tokens need {len(tokens) - 1} entropies, at least one; given {len(entropies)}")
    first, rest = tokens[0], list(zip(tokens[1:], entropies, strict=True))
    if thresholds is None:
        drawn = [_shaded(token, entropy) for token, entropy in rest]
        legend = "Raised numbers: entropy in nats; the darker, the more undecided."
        most = sorted(rest, key=lambda one: -one[1])[:NAMED]
        named = ", ".join(f"{_named(token)} {entropy:.2f}" for token, entropy in most)
        alt = (
            f"Entropy of {len(rest)} tokens from {min(entropies):.2f} to {max(entropies):.2f} nats, in the mean "
            f"{fmean(entropies):.2f}; highest: {named}."
        )
    else:
        tiers = tiers_of(entropies, thresholds)
        drawn = [_tiered(*one, tier) for one, tier in zip(rest, tiers, strict=True)]
        legend = " ".join(_mark(name, tier) for tier, name in enumerate(TIERS))
        hard = [_named(token) for (token, _), tier in zip(rest, tiers, strict=True) if tier == 2]
        told = f" Hard: {', '.join(hard[:NAMED])}{', ...' if len(hard) > NAMED else ''}." if hard else ""
        alt = tally(tiers, thresholds, "tokens") + told
    text = "".join([html.escape(first), *drawn])
    return Marked(f'<div style="white-space: pre-wrap">{text}</div><div style="margin-top: 0.5em">{legend}</div>', alt)


def byte_match(answer: str, continuation: str, boundaries: Sequence[int]) -> Marked:
    """Lay an answer's bytes under those of the text, with the ends of the text's tokens, and say what that earns.

    Args:
        answer: what was said.
        continuation: the text from the position on.
        boundaries: byte offsets at which its tokens end.

    Raises:
        ValueError: as ``prefix_match_reward``.

    Example:
        >>> byte_match("étu", "étude", (2, 6)).alt
        'Prefix match 0: the 4 bytes agree, but they end inside a token; tokens end behind bytes 2, 6.'
    """
    reward = prefix_match_reward(answer, continuation, boundaries)
    said, true = (text.encode("utf-8", errors="surrogatepass") for text in (answer, continuation))
    width = min(LONGEST, max(len(said), len(true)))
    rows = []
    for name, line in (("text", true), ("answer", said)):
        cells = [_byte(line, place, said, true, boundaries) for place in range(width)]
        rows.append(f"<tr>{_head('row', name)}{''.join(cells)}</tr>")
    alt = f"Prefix match {reward:.0f}: {_why(said, true, boundaries)}; tokens end behind bytes {_listed(boundaries)}."
    note = "Thick lines: a token of the text ends. · is a space, two signs a byte beyond ASCII. ≠: bytes differ."
    return Marked(f'<table style="border-collapse: collapse">{"".join(rows)}</table><p>{note}</p>', alt)


def question(tokens: Sequence[str], index: int) -> Marked:
    """Show a text as tokens up to a position, and the position itself as a question.

    Args:
        tokens: as text, in order.
        index: of the token that is asked for; 1 or more, since something must stand before it.

    Raises:
        ValueError: if no such token can be asked for.

    Example:
        >>> question(["A", " lift", " waits"], 2).alt
        'Token 2 of “A lift”, and then? It is “ waits”.'
    """
    if not 1 <= index < len(tokens):
        raise ValueError(f"position {index} cannot be asked for; in this text 1 to {len(tokens) - 1} can")
    ground = ("#fff", "#e8eef4")
    boxes = [
        f'<span style="background: {ground[place % 2]}; color: #000; border-bottom: 2px solid #777; '
        f'border-right: 1px solid #777">{_visible(token)}</span>'
        for place, token in enumerate(tokens[:index])
    ]
    asked = f'<span style="background: {PURPLE}; color: #fff; padding: 0 0.4em; font-weight: bold">?</span>'
    text, truth = "".join(tokens[:index]), tokens[index]
    return Marked(
        f'<div style="white-space: pre-wrap">{"".join(boxes)}{asked}</div>'
        f"<div>The next token is <b>“{_visible(truth)}”</b>, number {index}.</div>",
        f"Token {index} of “{text}”, and then? It is “{truth}”.",
    )


def rollout_table(rows: Sequence[Mapping[str, Any]]) -> Marked:
    """Show rollouts as a table: rows of one position stand together below what they were asked.

    Args:
        rows: {"when": whose rollout it is, "context", "truth", "thought", "closed", "answer", "match"} each, as lines
            of rollouts.jsonl and samples.json have them.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("there is no rollout to show")
    body, told = [], []
    for (context, truth), same in groupby(rows, key=lambda row: (row["context"], row["truth"])):
        asked = f"... {html.escape(context)} <b>[{_visible(truth)}]</b>"
        body.append(f'<tr><td colspan="4" style="{_CELL}; background: #e8eef4; color: #000">{asked}</td></tr>')
        for row in same:
            right = bool(row["match"])
            thought = html.escape(row["thought"]) + ("" if row["closed"] else " <b>[cut off]</b>")
            cells = (html.escape(row["when"]), thought, f"“{_visible(row['answer'])}”", "✓" if right else "✗")
            look = f"{_CELL}; background: {_tint(BLUE, 0.15) if right else '#fff'}; color: #000"
            whole = ("; white-space: nowrap", "", "", "")  # whose rollout it is stands in one line
            drawn = (f'<td style="{look}{one}">{cell}</td>' for cell, one in zip(cells, whole, strict=True))
            body.append(f"<tr>{''.join(drawn)}</tr>")
    for when in dict.fromkeys(row["when"] for row in rows):
        mine = [row for row in rows if row["when"] == when]
        ticks, cut = sum(bool(row["match"]) for row in mine), sum(not row["closed"] for row in mine)
        words = fmean(len(row["thought"].split()) for row in mine)
        told.append(f"{when}: {ticks} of {len(mine)} right, {words:.0f} words a thought, {cut} cut off")
    heads = "".join(_head("col", name) for name in ("", "thought", "answer", "right"))
    table = f'<table style="border-collapse: collapse"><tr>{heads}</tr>{"".join(body)}</table>'
    return Marked(table, f"Thoughts and answers. {'; '.join(told)}.", role="group")


def _tint(colour: str, share: float) -> str:
    """Mix a colour into white.

    Example:
        >>> _tint("#000000", 0.5)
        '#808080'
    """
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)


def _head(scope: str, name: str) -> str:
    return f'<th scope="{scope}" style="{_CELL}; background: #fff; color: #000; white-space: nowrap">{name}</th>'


def _named(token: str) -> str:
    return f"“{token.strip()}”" if token.strip() else "white space"


def _visible(token: str) -> str:
    return html.escape(token.replace("\n", "↵\n").replace("\t", "→\t"))


def _shaded(token: str, entropy: float) -> str:
    look = f"background: {_tint(RED, 0.6 * min(1.0, entropy / REACH))}; color: #000"
    raised = f'<sup style="{look}; font-size: 0.65em">{entropy:.1f}</sup>' if entropy >= 0.05 else ""
    return f'<span style="{look}" title="{entropy:.2f} nats">{_visible(token)}</span>{raised}'


def _tiered(token: str, entropy: float, tier: int) -> str:
    return _mark(token, tier, f"{entropy:.2f} nats, {TIERS[tier]}")


def _mark(token: str, tier: int, title: str = "") -> str:
    ground = _tint((BLUE, ORANGE, RED)[tier], (0.08, 0.35, 0.45)[tier])
    look = f"background: {ground}; color: #000; text-decoration: {UNDERLINES[tier]}; text-underline-offset: 3px"
    return f'<span style="{look}" title="{title or TIERS[tier]}">{_visible(token)}</span>'


def _byte(line: bytes, place: int, said: bytes, true: bytes, boundaries: Sequence[int]) -> str:
    """One cell: the byte as a sign, marked where the answer differs; a thick line where a token of the text ends."""
    there = place < len(line)
    byte = line[place] if there else 0
    sign = "" if not there else "·" if byte == 32 else chr(byte) if 33 <= byte < 127 else f"{byte:02X}"
    differs = line is said and there and (place >= len(true) or byte != true[place])
    ground = _tint(RED, 0.45) if differs else _tint(BLUE, 0.25) if place < len(said) and there else "#fff"
    edge = "4px solid #000" if place + 1 in boundaries else "1px solid #999"
    look = f"{_CELL}; font-family: monospace; background: {ground}; color: #000; border-right: {edge}"
    return f'<td style="{look}">{html.escape(sign)}{" ≠" if differs else ""}</td>'


def _why(said: bytes, true: bytes, boundaries: Sequence[int]) -> str:
    if not said:
        return "the answer is empty"
    alike = next((n for n, (one, other) in enumerate(zip(said, true, strict=False)) if one != other), None)
    if alike is not None:
        return f"byte {alike + 1} differs"
    count = f"the {len(said)} bytes agree" if len(said) > 1 else "the 1 byte agrees"
    if len(said) > len(true):
        return f"the answer goes on where the text known here ends, behind {len(true)} bytes"
    ending = "they end" if len(said) > 1 else "it ends"
    return f"{count}, and {ending} with a token" if len(said) in boundaries else f"{count}, but {ending} inside a token"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
