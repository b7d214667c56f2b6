"""Whatever a setting is given, there is a valid configuration or one line that names field, value and remedy."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini import cli
from rmt_mini.config import PRESETS, PretrainConfig, RMTConfig
from tests.outcomes import either

FIELDS = {field.name: field.default for field in dataclasses.fields(RMTConfig)}
HUGE = 10**5000  # more digits than Python prints


class Silent:
    """Says nothing about itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no comment")


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300)
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=20)
    | st.binary(max_size=5)
)
ODD = st.sampled_from(
    [
        HUGE, -HUGE, 2**63, 2**63 - 1, 1e308, 5e-324, "", "\0", "a\nb", "\ud800", "x" * 10_000, Silent(), Silent,
        nested(5000), np.arange(500.0), np.float64(0.5), np.int64(3), np.bool_(True), torch.zeros(40, 40), object(),
        print, {"a": 1}, (), (1.0,) * 1000, (0.5, HUGE), (HUGE, 0, 1), (float("nan"),) * 3, (1, 0, 0), [1, 0, 0],
        (True, False, False), b"micro", "１２", "nan", "0x10",
    ]
)  # fmt: skip
ANY = PLAIN | ODD | st.lists(PLAIN, max_size=3) | st.lists(PLAIN, max_size=3).map(tuple)


def drawn_like(default: Any) -> st.SearchStrategy[Any]:
    """Values of the default's own kind, at which a field is more likely to be valid."""
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 300)
    if isinstance(default, float):
        return st.floats(0, 2)
    if isinstance(default, tuple):
        return st.sampled_from([default, tuple(reversed(default)), (0,) * (len(default) - 1) + (1,)])
    return st.sampled_from([default, "auto", "fixed", "quantile", "grpo", "a b", "é"])


LIKELY = st.fixed_dictionaries({}, optional={name: drawn_like(default) for name, default in FIELDS.items()})


def made(make: Callable[[], RMTConfig], name: str = "") -> RMTConfig | None:
    """Return the configuration, or None where it was refused in one line that names field, value and remedy."""
    config: RMTConfig | None
    config, message = either(make)
    if message is not None:
        field, _, rest = message.partition(" is ")
        assert field in FIELDS
        assert name in (field, "") or name in rest  # of two that clash, either may be named
        value, _, remedy = rest.rpartition("; ")
        assert value
        assert remedy
    return config


def survives(config: RMTConfig) -> None:
    assert RMTConfig.from_dict(config.to_dict()) == config
    assert RMTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(value=ANY)
@settings(max_examples=200)
def test_any_value_of_any_field(value: Any) -> None:
    for name in FIELDS:
        config = made(partial(RMTConfig, **{name: value}), name)
        if config is not None:
            assert getattr(config, name) is value
            survives(config)


@given(values=LIKELY)
def test_many_fields_at_once(values: dict[str, Any]) -> None:
    config = made(lambda: RMTConfig(**values))
    if config is not None:
        survives(config)


@given(values=LIKELY, name=st.sampled_from(sorted(FIELDS)), value=ANY)
def test_a_changed_copy_is_the_configuration_made_at_once(values: dict[str, Any], name: str, value: Any) -> None:
    config = made(lambda: RMTConfig(**values))
    if config is not None:
        one, other = partial(config.replace, **{name: value}), partial(RMTConfig, **values | {name: value})
        assert either(one) == either(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(values=JSON | st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON, max_size=3))
def test_any_json_instead_of_settings(values: Any) -> None:
    config, _ = either(lambda: RMTConfig.from_dict(values))
    if config is not None:
        survives(config)


@given(value=ANY)
@settings(max_examples=200)
def test_any_value_of_any_field_of_pre_training(value: Any) -> None:
    for field in dataclasses.fields(PretrainConfig):
        _, message = either(partial(PretrainConfig, **{field.name: value}))
        assert message is None or message.startswith((f"{field.name} is ", "hidden_size is "))


# --- through the command line ------------------------------------------------------------------------------------


def asked(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[RMTConfig], list[str]]:
    """Exit code, the configuration that would run, and the lines of stderr."""
    seen: list[RMTConfig] = []
    told = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(cli, "_run", seen.append)
        try:
            cli.main(["run", *arguments])
        except SystemExit as ended:
            return int(ended.code or 0), seen, told.getvalue().splitlines()
    return 0, seen, told.getvalue().splitlines()


def words(name: str) -> st.SearchStrategy[list[str]]:
    kind = typing.get_type_hints(RMTConfig)[name]
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        return st.sampled_from([[flag], [f"--no-{flag[2:]}"], [flag, "yes"]])
    number = st.integers() | st.floats() | st.integers(min_value=10**30)
    one = (
        number.map(str) | st.text(max_size=8) | st.sampled_from(["", "-", "--", "nan", "-inf", "1_0", "9" * 5000])
    ).map(
        lambda word: word.replace("\0", "")  # which no operating system hands over
    )
    count = len(typing.get_args(kind)) or 1
    return st.lists(one, min_size=max(0, count - 1), max_size=count + 1).map(lambda found: [flag, *found])


@given(data=st.data())
def test_any_words_behind_a_flag(data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    name = data.draw(st.sampled_from(sorted(set(FIELDS) - {"preset"})))
    preset = data.draw(st.sampled_from([*PRESETS, "laptop"]))
    code, seen, lines = asked([preset, *data.draw(words(name))], monkeypatch)
    if code == 0:
        (config,) = seen
        assert config.preset == preset
        survives(config)
    else:
        assert (code, seen, len(lines)) == (2, [], 1)
        assert lines[0].startswith("error: ")


@given(values=LIKELY)
def test_flags_give_what_the_constructor_gives(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    values.pop("preset", None)
    arguments = ["laptop"]
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments += [f"--{flag}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    expected = made(lambda: RMTConfig(preset="laptop", **values))
    code, seen, lines = asked(arguments, monkeypatch)
    assert (code, seen) == (0, [expected]) if expected is not None else (code, seen, len(lines)) == (2, [], 1)
