"""The script for a GPU, tried on a CPU: what it runs is there, what it finds is written as it comes."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.bench import parts
from rmt_mini.bench.parts import PARTS
from rmt_mini.bench.sizes import Setting
from tests.bench import gpu
from tests.bench.gpu import PLAN, ROOT, check, main, work_through
from tests.scale.test_planner import GPU

TINY = Setting(model="micro", **PLAN["tiny"])


def test_what_it_runs_exists_and_fits_into_ten_minutes() -> None:
    named = [part["test"].split("::") for part in PLAN["parts"].values() if "test" in part]
    assert len(named) == 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
    assert sum(part["seconds"] for part in PLAN["parts"].values()) <= 570


def test_it_measures_the_shape_that_was_recorded() -> None:
    sizes = ("documents", "positions", "group_size", "prefix", "thought_tokens")
    assert [PLAN["setting"][name] for name in sizes] == [GPU["setting"][name] for name in sizes]


def test_the_whole_script_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process; what a process of its own does, tests of the bench show."""
    pytest.importorskip("trl")
    given: list[tuple[str, float]] = []

    def here(row: str, setting: Setting, seconds: float, **more: Any) -> dict[str, Any]:
        given.append((row, seconds))
        if row == "trl" and [one for one, _ in given].count(row) > 1:  # TRL is run once
            return {"seconds": [9.0], "peak_memory_mb": 100.0} | more
        return PARTS[row](setting, **more) | {"peak_memory_mb": 100.0}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(parts, "product_rate", lambda *_: 4e9)
    monkeypatch.setattr(gpu, "run_part", here)
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--limit", "1e9", "--out", str(tmp_path / "out")])
    main()
    found = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    states = {name: part["state"] for name, part in found["parts"].items()}
    assert [*states] == [*PLAN["parts"]]
    assert {name for name, state in states.items() if state == "no GPU here"} == {
        name for name, part in PLAN["parts"].items() if "test" in part or "continuous" in part
    }
    assert states["limits"] == "measured"
    assert states["tree"].endswith(" s a step")
    assert given[0] == ("tree", 3 * PLAN["parts"]["tree"]["seconds"])
    assert [one["micro_batch"] for one in found["trl_trials"]] == [2, 4, 1]
    assert found["trl"] in found["trl_trials"]
    assert found.keys() >= {"setting", "tree", "limits", "machine", "date", "command", "step_speedup_vs_trl"}
    assert (found["random_weights"], found["versions"]["trl"][:2], found["machine"]["gpu"]) == (True, "1.", None)
    assert len(found["tree"]["trunk_seconds"]) == 1
    with pytest.raises(SystemExit):
        main()
    assert "is there already; give another --out" in capsys.readouterr().err


def test_parts_that_do_not_fit_are_not_run_and_results_come_as_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"a": {"seconds": 10, "row": "tree"}, "b": {"seconds": 1e9, "row": "trl"}, "c": {"seconds": 50, "test": "t"}}
    monkeypatch.setitem(PLAN, "parts", plan)
    limits: list[float] = []
    monkeypatch.setattr(gpu, "run_part", lambda *given: limits.append(given[2]) or {"error": "no memory"})
    monkeypatch.setattr(gpu, "check", lambda test, seconds: limits.append(seconds) or {"state": f"passed: {test}"})
    seen = [
        {name: part["state"] for name, part in found["parts"].items()}
        for found in work_through(TINY, time.time() + 100)
    ]
    assert seen == [
        {"a": "failed: no memory", "b": "not run", "c": "not run"},
        {"a": "failed: no memory", "b": "not run", "c": "passed: t"},
    ]
    assert limits[0] == 30
    assert 50 < limits[1] <= 100  # three times as many do not fit


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ("pass", "passed: 1 passed in"),
        ("assert 1 + 1 == 3", "failed: 1 failed in"),
        ("pytest.skip('no CUDA')", "failed: 1 skipped in"),
        ("import time; time.sleep(60)", "failed: it took longer than 1 s"),
    ],
)
def test_a_check_passes_only_if_its_test_did(
    body: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check("absent.py::test", 1) == {"state": "no GPU here"} or torch.cuda.is_available()
    (tmp_path / "test_it.py").write_text(f"import pytest\n@pytest.mark.gpu\ndef test_it():\n    {body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds to import
    found = check("test_it.py::test_it", 1 if "sleep" in body else 60)
    assert found["state"].startswith(state)
    assert ("output" in found) is (state in ("failed: 1 failed in", "failed: 1 skipped in"))
