"""Comparisons over the values of one setting read as a map: accuracy of each arm, differences, where lines cross."""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, pairwise

import numpy as np

from rmt_mini import files
from rmt_mini.arms import BASE, METHOD
from rmt_mini.files import ArmRow, Cell, Change, Comparison


def _gated(row: ArmRow) -> Cell | None:
    mean = row.more.get("gated", {}).get("average")
    return None if mean is None else Cell(accuracy=mean.mean, low=mean.low, high=mean.high, n=mean.n)


LEVELS: dict[str, Callable[[ArmRow], Cell | None]] = {
    "average": lambda row: row.average,
    "gated": _gated,  # thinks only where the plain prediction is unsure
    "plain": lambda row: row.plain.average,
    "calculable": lambda row: row.sorts.get("calculable"),
}


def map_over(setting: str, found: Mapping[float, Comparison]) -> files.Map:
    """Read the accuracy of each arm from comparisons by rising value of a setting, at each of LEVELS."""
    levels = {}
    for what, cell_of in LEVELS.items():
        arms, differences = dict[str, dict[float, Cell]](), dict[str, dict[float, Change]]()
        for value, one in found.items():
            for name, row in one.arms.items():
                cell = cell_of(row)
                if name not in BASE and cell is not None and cell.accuracy is not None:
                    arms.setdefault(name, {})[value] = cell
            for pair in one.paired:
                if pair.tier == what and pair.b not in BASE and pair.difference is not None:
                    change = Change(difference=pair.difference, low=pair.low, high=pair.high, n=pair.n)
                    differences.setdefault(pair.b, {})[value] = change
        if arms:
            crossed = crossings(arms, differences)
            levels[what] = files.Level(arms=arms, differences=differences, crossings=crossed)
    return files.Map(setting=setting, levels=levels)


def crossings(
    arms: Mapping[str, Mapping[float, Cell]], differences: Mapping[str, Mapping[float, Change]]
) -> list[files.Crossing]:
    """Return where lines of accuracy cross, interpolated linearly between neighbouring values where they differ.

    The ends of the intervals of ``differences``, RMT minus another arm, are interpolated likewise.
    """
    found = []
    for first, second in combinations(arms, 2):
        gaps = {at: (one.accuracy or 0.0) - (arms[second][at].accuracy or 0.0) for at, one in arms[first].items()}
        gaps = {at: gap for at, gap in gaps.items() if round(gap, 3)}  # as equal as a table shows them, they are equal
        for low, high, at in _zeros(gaps):
            ahead, behind = (first, second) if gaps[low] > 0 else (second, first)
            with_method = METHOD in (first, second)
            known = differences.get(behind if ahead == METHOD else ahead, {}) if with_method else {}
            ends = _ends(known, at, falling=ahead == METHOD)
            found.append(files.Crossing(ahead=ahead, behind=behind, low=low, high=high, at=at, **ends))
    return found


def _zeros(line: Mapping[float, float]) -> Iterator[tuple[float, float, float]]:
    """Yield between which neighbours a line passes zero, and where, interpolated linearly."""
    for (one, before), (other, after) in pairwise(line.items()):
        if before * after < 0:
            yield one, other, one + (other - one) * before / (before - after)


def _ends(differences: Mapping[float, Change], at: float, falling: bool) -> dict[str, float]:
    """Return where, left and right of a crossing, the interval of the difference leaves zero, as far as it does."""
    found = dict[str, float]()
    for name, side, end in (("first", -1, "low" if falling else "high"), ("last", 1, "high" if falling else "low")):
        line = {value: getattr(one, end) for value, one in differences.items() if one.low is not None}
        start = {at: float(np.interp(at, list(line), list(line.values())))} if line else {}
        beyond = {value: line[value] for value in sorted(line, reverse=side < 0) if side * (value - at) > 0}
        for *_, place in _zeros(start | beyond):
            found.setdefault(name, place)
    return found
