"""Read back what a run left behind: everything is held against the shape it was written in before it is believed.

A laptop whose battery died, a half-copied folder, an editor that "repaired" a file: what cannot have been written by a
run is one clear line that names file and place, or a line that is passed over and counted; never a crash and never a
number made up in its stead. (A digit that became another digit cannot be told from here.)

Shapes, from small to large: a predicate, such as ``share``; (one, other), either of them; [each]; {key: value}, in
which "key?" may be missing and "*" stands for every key not named.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import Turn
from rmt_mini.engine.text import Text
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Position, StepMetrics

TIMES = ("before", "cold_start", "after")  # at which a run is measured
LARGEST = 1e15  # no count, length or loss of a run comes near it


def number(value: object) -> bool:
    """Any finite number of a size that a run may have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def whole(value: object) -> bool:
    """A whole number of at least 0."""
    return isinstance(value, int) and number(value) and value >= 0


def share(value: object) -> bool:
    """A number from 0 to 1."""
    return isinstance(value, int | float) and number(value) and -1e-9 <= value <= 1 + 1e-9


def tier(value: object) -> bool:
    """Easy, medium or hard, by its number."""
    return whole(value) and value in range(len(TIERS))


def text(value: object) -> bool:
    """Any text."""
    return isinstance(value, str)


def switch(value: object) -> bool:
    """True or false."""
    return isinstance(value, bool)


def seed(value: object) -> bool:
    """A whole number of any size."""
    return isinstance(value, int) and not isinstance(value, bool)


def status(value: object) -> bool:
    """How a run stands."""
    return value in ("running", "done", "interrupted", "failed")


def time(value: object) -> bool:
    """When an answer was given."""
    return value in TIMES


def missing(value: object) -> bool:
    """Null, where nothing was asked."""
    return value is None


_CELL = (
    {"accuracy": share, "low": share, "high": share, "n": whole},
    {"accuracy": missing, "low": missing, "high": missing, "n": whole},
)
_SORT = {"accuracy": share, "low": share, "high": share, "n": whole, "thought_length": number}
_ROW = {
    **dict.fromkeys((*TIERS, "average"), _CELL), "thought_length": number, "closed_share": share, "budget": whole,
    "sorts?": {"*": _SORT},
}  # fmt: skip
_ROWS = {"ntp": _ROW, "think": _ROW}
_CHANGE = (
    dict.fromkeys(("difference", "low", "high"), number),
    dict.fromkeys(("difference", "low", "high"), missing),
)
_LENGTHENED = (_CHANGE[0], {"difference": (number, missing), "low": missing, "high": missing})
EVALUATION = {
    "before?": _ROWS, "cold_start?": _ROWS, "after?": _ROWS,
    "gain?": ({"*": _CHANGE}, missing), "length_change?": {"*": _LENGTHENED},
}  # fmt: skip
_ASKED = {"think": {"budget": whole, "average?": {"n": whole}}}
ASKED = {"before": _ASKED, "cold_start?": _ASKED, "after": _ASKED}  # all that reading answers wants of EVALUATION
NOTES = {
    "config": {}, "seed": seed, "status": status, "corpus_digest?": text, "model_digest?": text,
    "token_digest?": text, "proxy_digest?": text, "chat_turn?": {"before": text, "after": text},
    "versions?": {"*": text}, "unknown_share?": share, "kind?": text, "machine?": {},
    "seconds?": {"*": number}, "resumed?": [text],
}  # fmt: skip
POSITION = {"trunk": whole, "index": whole, "tier": tier, "entropy": number}
POSITIONS = {"positions": [POSITION]}
ANSWER = {
    "when": time, "document": text, "position": whole, "tier": tier, "sort": text, "plain": share, "match": share,
    "length": whole, "closed": switch,
}  # fmt: skip
SAMPLE = {
    "document": text, "position?": whole, "index?": whole, "tier": tier, "entropy": number, "context": text,
    "truth": text, "budget": (whole, missing), "thought": text, "closed": switch, "answer": text, "match": share,
}  # fmt: skip
SAMPLES = {"before?": [SAMPLE], "after?": [SAMPLE]}
ROLLOUT = SAMPLE | {"step": whole, "reward": number}
_FORETOLD = {"signal_groups": (share, missing), "positions": whole}
_SEEN = {"signal_groups": (share, missing), "groups": whole}
PREFLIGHT = {"tiers": {"*": _FORETOLD}, "seen?": {"steps": whole, "tiers": dict.fromkeys(TIERS, _SEEN)}}
# What every version wrote; fields that came later may be missing, but not be something else.
_FIRST_METRICS = {
    "step", "budget", "tier_probabilities", "tier_counts", "match_reward", "length_reward", "reward", "thought_length",
    "closed_share", "signal_groups", "rl_loss", "ntp_loss", "grad_norm", "rl_tokens", "ntp_tokens", "rollout_seconds",
    "update_seconds", "peak_memory_mb",
}  # fmt: skip


def _metrics_shape() -> dict[str, Any]:
    shape = {}
    for name, kind in typing.get_type_hints(StepMetrics).items():
        parts = typing.get_args(kind)
        inner = whole if (parts or (kind,))[0] is int else number
        shape[name if name in _FIRST_METRICS else f"{name}?"] = _several(inner, len(parts)) if parts else inner
    return shape


def _several(inner: Any, count: int) -> Any:
    def several(value: object) -> bool:
        return isinstance(value, list) and len(value) == count and all(map(inner, value))

    return several


METRICS = _metrics_shape() | {"budget": lambda value: whole(value) and value >= 1}
_OF_SORT = "_think_after_minus_ntp_before"


def misfit(value: object, shape: Any, name: str = "it") -> str | None:
    """Say which part of a JSON value is not as its shape says; None where all is.

    Example:
        >>> misfit({"n": [3, "x"]}, {"n": [whole], "low?": share})
        "n.1 is 'x'"
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, name) for one in shape]
        return found[0] if all(found) else None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is {value!r:.40}"
        parts = ((str(place), part, shape[0]) for place, part in enumerate(value))
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name} is {value!r:.40}"
        lacking = [key for key in shape if key != "*" and not key.endswith("?") and key not in value]
        if lacking:
            return f"{name} lacks {lacking[0]!r}"
        parts = ((key, part, shape.get(key, shape.get(f"{key}?", shape.get("*")))) for key, part in value.items())
    else:
        return None if shape(value) else f"{name} is {value!r:.40}"
    within = "" if name == "it" else f"{name}."
    wrongs = (misfit(part, of, f"{within}{key}") for key, part, of in parts if of is not None)
    return next((wrong for wrong in wrongs if wrong), None)


class Lines(NamedTuple):
    """The lines of a .jsonl file that are as they should be, and how many others there are."""

    good: list[dict[str, Any]]
    passed_over: int


def read_lines(path: Path, shape: Mapping[str, Any]) -> Lines:
    """Read a .jsonl file; a line that is no JSON of the shape is passed over and counted, and so is half a line.

    Raises:
        UserError: if the file is there and cannot be read.
    """
    good, passed_over = [], 0
    for line in _bytes(path).split(b"\n") if path.exists() else []:
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
            fits = misfit(value, shape) is None
        except (ValueError, RecursionError):
            fits = False
        if fits:
            good.append(value)
        else:
            passed_over += 1
    return Lines(good, passed_over)


def read_json(path: Path, shape: Mapping[str, Any], absent: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a JSON file.

    Args:
        path: of the file.
        shape: of what it holds.
        absent: what is returned where there is no such file; None makes that an error.

    Raises:
        UserError: if it is missing, or not as it was written.
    """
    if absent is not None and not path.exists():
        return dict(absent)
    try:
        value: dict[str, Any] = json.loads(_bytes(path).decode())
        wrong = misfit(value, shape)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if wrong:
        raise _damaged(path, wrong)
    return value


def read_notes(folder: Path) -> dict[str, Any]:
    """Read run.json; its settings are made into a valid configuration, those of older versions kept beside it.

    Raises:
        UserError: if the folder is no run's, or the file is damaged.
    """
    if not (folder / "run.json").is_file():
        raise UserError(f"{str(folder)!r} is not a run folder: it holds no run.json; give the folder of a run")
    notes = read_json(folder / "run.json", NOTES)
    known = {name: value for name, value in notes["config"].items() if name in RMTConfig.model_fields}
    valid = config_of(known, folder)
    return notes | {"config": valid.to_dict() | {name: v for name, v in notes["config"].items() if name not in known}}


def config_of(values: Mapping[str, Any], folder: Path) -> RMTConfig:
    """Return the settings that a run's notes hold.

    Raises:
        UserError: if one of them is unknown, or not valid.
    """
    try:
        return RMTConfig.from_dict(values)
    except UserError as error:
        raise _damaged(folder / "run.json", error) from error


def turn_of(notes: Mapping[str, Any]) -> Turn | None:
    """Return what a run's chat template wrote around a text; None where it wrote nothing."""
    turn = notes.get("chat_turn")
    return None if turn is None else Turn(turn["before"], turn["after"])


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read evaluation.json; empty where there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / "evaluation.json"
    found = read_json(path, EVALUATION, absent={})
    rows = [found[when][how] for when in TIMES if when in found for how in ("ntp", "think")]
    sorts = [{*row.get("sorts", {})} for row in rows]
    gained = {
        name.removesuffix(_OF_SORT): gain["difference"]
        for name, gain in (found.get("gain") or {}).items()
        if name.endswith(_OF_SORT)
    }
    known = sorts[0] if sorts else set()
    if any(other != known for other in sorts) or not all(name.isidentifier() for name in known):
        raise _damaged(path, "its rows differ in their sorts of tokens")
    if not gained.keys() <= known & found.get("length_change", {}).keys() or None in gained.values():
        raise _damaged(path, "what changed is told of other sorts of tokens than its rows")
    return found


def read_preflight(folder: Path) -> dict[str, Any]:
    """Read preflight.json; empty where there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = folder / "preflight.json"
    found = read_json(path, PREFLIGHT, absent={"tiers": {}})
    if "seen" in found and not {*TIERS} <= found["tiers"].keys():
        raise _damaged(path, "tiers that were seen are not foretold")
    return found


def read_positions(folder: Path, texts: Sequence[Text]) -> list[Position]:
    """Read positions.json: held-out positions, sorted by text and index.

    Raises:
        UserError: if it is damaged, or the texts are not those it was made for.
    """
    path = folder / "positions.json"
    names = [field.name for field in dataclasses.fields(Position)]
    saved = [Position(*(one[name] for name in names)) for one in read_json(path, POSITIONS)["positions"]]
    places = [(one.trunk, one.index) for one in saved]
    known = all(trunk < len(texts) and index in texts[trunk].places for trunk, index in places)
    if not places or places != sorted(set(places)) or not known:
        raise _damaged(path, "it does not list positions of the held-out text in their order")
    return saved


def _damaged(path: Path, why: object) -> UserError:
    told = " ".join(str(why).split())[:200].encode(errors="backslashreplace").decode()  # JSON holds half characters
    return UserError(f"{str(path)!r} is damaged ({told}); restore it from a copy")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror}); restore it from a copy") from error
