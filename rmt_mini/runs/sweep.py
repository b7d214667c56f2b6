"""Which values a sensitivity study runs, and comparisons over values of one setting.

In a sensitivity study one setting is changed at a time, around the preset's value. A variant is an arm like any other,
named FIELD=VALUE, so ``compare`` runs it. Held-out positions keep the tiers that the preset gives them, also where the
thresholds change. Over values of one setting each value has a whole comparison, done one after another:

    DIR/over.json                which setting, values, arms, seeds
    DIR/FIELD=VALUE/             a comparison each, as ``rmt-mini compare`` leaves it
    DIR/map.json, report.md, figures/map.png
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from rmt_mini.arms import METHOD, Arm, arms_named
from rmt_mini.config import RMTConfig
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import Comparison, OverPlan, require_free
from rmt_mini.report.claims import SYMBOLS
from rmt_mini.report.comparison import SIGN, value_name
from rmt_mini.report.maps import map_over
from rmt_mini.report.report import write_map_report
from rmt_mini.runs import compare
from rmt_mini.runs.run import anywhere, prepare

SHIFT = 0.2  # of a transition point, as a share of T


def variants(base: RMTConfig, fields: Iterable[str] = SYMBOLS) -> list[Arm]:
    """Return the method and its variants: half and twice each of ``fields``, all among SYMBOLS, as far as is allowed.

    Example:
        >>> [arm.name for arm in variants(RMTConfig(), ["budget_decay", "curriculum_end"])]
        ['rmt', 'budget_decay=0.1', 'budget_decay=0.4', 'curriculum_end=0.5', 'curriculum_end=0.9']
    """
    made = arms_named(base, [METHOD])
    for field in fields:
        if field not in SYMBOLS:
            raise UserError(f"setting {field!r} is not varied here; those that are: {', '.join(SYMBOLS)}")
        for value in _values(base, field):
            changes: dict[str, Any] = {field: value}
            if field == "tier_thresholds" and not any(base.evaluation_thresholds):
                changes["evaluation_thresholds"] = base.tier_thresholds
            made.append(Arm(f"{field}{SIGN}{value_name(value)}", changes))
    return made


def _values(base: RMTConfig, field: str) -> Iterator[Any]:
    """Yield what a setting is changed to: what is allowed, without the value it has."""
    value, kind = getattr(base, field), RMTConfig.model_fields[field].annotation
    if isinstance(value, str):
        found = list(get_args(kind))
    elif isinstance(value, tuple):
        found = [tuple(round(one * by, 6) for one in value) for by in (0.5, 2.0)]
    elif field.startswith("curriculum"):
        found = [round(max(0.0, min(1.0, value + shift)), 6) for shift in (-SHIFT, SHIFT)]
    else:
        found = [round(value / 2, 6) if isinstance(value, float) else value // 2, round(2 * value, 6)]
    for one in found:
        with suppress(UserError):
            base.replace(**{field: one})
            if one != value:
                yield one


def over_values(base: RMTConfig, text: str) -> tuple[str, list[int | float]]:
    """Read FIELD=a,b,c, two or more values that the field's flag takes, each once; they come back in rising order.

    Example:
        >>> over_values(RMTConfig(), "budget_start=24,8")
        ('budget_start', [8, 24])
    """
    name, _, listed = text.partition(SIGN)
    field, values = name.strip().replace("-", "_"), list[int | float]()
    known = RMTConfig.model_fields.get(field)
    if known is None or field == "seed" or known.annotation not in (int, float):
        raise UserError(f"{field!r} is not a setting that is a number; give FIELD=a,b,c, as in ntp_weight=0.1,0.5")
    for word in listed.split(","):
        try:
            values.append(known.annotation(word))
        except ValueError:
            raise UserError(f"{field} is {word!r}; give {known.title}") from None
        base.replace(**{field: values[-1]})
    if len(values) < 2 or len(set(values)) < len(values):
        raise UserError(f"--over {text} has fewer than two values, or one twice; give two or more, each once")
    return field, sorted(values)


def over(
    config: RMTConfig,
    field: str,
    values: Sequence[int | float],
    arms: Sequence[str],
    seeds: int = 3,
    workers: int = 0,
    progress: bool = True,
    stop: threading.Event | None = None,
    bases: int = 1,
) -> tuple[Path, str]:
    """Compare arms at each value of a setting, and draw the map; returns the folder and the table of averages.

    ``config.out`` is the folder, ``over_values`` gives field and values; the rest, and what is raised, as ``compare``.
    The same call again continues.
    """
    config, folder = anywhere(config), Path(config.out)
    names, plain = [arm.name for arm in arms_named(config, arms)], config.replace(out="")
    plan = OverPlan(config=plain, field=field, values=list(values), arms=names, seeds=seeds, bases=bases)
    compare.require_bases(config, bases)
    configs = [_at(plan, folder, value) for value in values]
    for one in configs:
        for arm in arms_named(one, names):
            arm.config(one)  # complains before there is a folder
    before = OverPlan.find(folder)
    if before is None:
        require_free(folder)
        for one in configs:
            prepare(one.replace(model=compare.model_of(one, 0)))
    elif before.field != field or plain.differences(before.config):
        raise UserError(f"folder {str(folder)!r} holds another map or other settings; choose another --out")
    else:
        most = {name: max(getattr(plan, name), getattr(before, name)) for name in ("seeds", "bases")}
        both = {name: [*dict.fromkeys((*getattr(before, name), *getattr(plan, name)))] for name in ("values", "arms")}
        plan = plan.model_copy(update=most | both | {"values": sorted(both["values"])})
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)
    return folder, go_on(folder, workers, progress, stop)


def go_on(folder: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Do what is not done of the comparisons over a setting, and draw the map; returns the table of averages."""
    plan = OverPlan.read(folder)
    try:
        for value in plan.values:
            config = _at(plan, folder, value)
            made = arms_named(config, plan.arms)
            compare.compare(config, made, plan.seeds, workers, progress, stop, plan.bases)
    except Stopped as error:
        raise Stopped(str(folder)) from error
    return report(folder)


def report(folder: Path) -> str:
    """Write the reports of the comparisons over a setting, and the map; returns the table of averages."""
    plan, found = OverPlan.read(folder), dict[float, Comparison]()
    for value in plan.values:
        one = Path(_at(plan, folder, value).out)
        compare.report(one)
        found[value] = Comparison.read(one)
    made = map_over(plan.field, found)
    made.write(folder)
    return write_map_report(folder, plan, made)


def _at(plan: OverPlan, folder: Path, value: float) -> RMTConfig:
    return plan.config.replace(**{plan.field: value, "out": str(folder / f"{plan.field}{SIGN}{value}")})
