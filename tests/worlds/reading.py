"""Read the micro-worlds' calculations from the words of its text, without the generator's tables."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SWAPS = {
    "near": {"left", "middle"}, "far": {"middle", "right"}, "outer": {"left", "right"},
    "low": {"left", "back"}, "cross": {"middle", "back"}, "high": {"right", "back"},
}  # fmt: skip
COUNT = ("one", "two", "three", "four")
LISTED = re.compile(r"first (\w+)(?:, second (\w+))?(?:, third (\w+))?(?:, fourth (\w+))?")
SAID = re.compile(r"after (one|two|three|four) (\w+)")
PLACE = re.compile(r"\b(\d|left|middle|right|back)\b")


@dataclass(frozen=True)
class Readout:
    """One result that a text states: from ``start`` the ``moves`` lead to ``said``, which ends at ``end``."""

    start: str
    moves: tuple[str, ...]
    said: str
    end: int

    @property
    def calculation(self) -> tuple[str, ...]:
        return (self.start, *self.moves)


def read(text: str) -> list[Readout]:
    """Find the read-outs of a document, or of a question with its answer, in their order."""
    found = []
    for listed in LISTED.finditer(text):
        moves = tuple(move for move in listed.groups() if move)
        start, end = PLACE.findall(text[: listed.start()])[-1], listed.end()
        for said in SAID.finditer(text, end):
            start = [start, *PLACE.findall(text[end : said.start()])][-1]  # another one, where one is named
            end = said.end()
            found.append(Readout(start, moves[: 1 + COUNT.index(said[1])], said[2], end))
        result = PLACE.search(text, end)
        if end == listed.end() and result:  # of all moves, where none is read out after each
            found.append(Readout(start, moves, result[0], result.end()))
    return found


def calculations(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Return start and moves of everything in texts that takes two steps or more."""
    return {one.calculation for text in texts for one in read(text) if len(one.moves) > 1}


def solve(start: str, moves: Iterable[str]) -> str:
    """Add modulo ten, or follow a place through swaps."""
    for move in moves:
        if move.isdigit():
            start = str((int(start) + int(move)) % 10)
        elif start in SWAPS[move]:
            (start,) = SWAPS[move] - {start}
    return start
