"""A comparison from its arms to its report, whole and interrupted: done runs stay, and the outcome is the same."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rmt_mini.runs.compare as compare_module
import rmt_mini.runs.pre_and_post as exams_module
from rmt_mini.arms import arms_named
from rmt_mini.cli import main
from rmt_mini.config import RMTConfig, preset
from rmt_mini.engine.model import Policy
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import Comparison, ComparisonPlan, ExamPlan, Map, Notes, PostTraining
from rmt_mini.runs import sweep
from rmt_mini.runs.compare import (
    compare,
    finish,
    go_on,
    in_name,
    is_done,
    report,
    require_bases,
    run_folder,
    usual_workers,
)
from rmt_mini.runs.pre_and_post import posttrain_run
from rmt_mini.runs.run import run
from rmt_mini.worlds.micro import WORLDS, make_tokenizer
from tests.fakes import byte_tokenizer
from tests.report.made import a_run, an_exam, notes
from tests.runs.test_resume import command, environment
from tests.runs.test_resume import flags as config_flags
from tests.runs.test_run import save, settings
from tests.stages.tiny import closing

NAMES = ("ntp", "ntp-equal-compute", "rpt", "rmt")


def small_one(folder: Path, **changes: Any) -> RMTConfig:
    defaults = {"steps": 2, "warmup_steps": 0, "evaluation_positions": 24, "preflight_positions": 3, "seed": 5}
    return settings(folder, **{**defaults, "out": str(folder / "compared"), **changes})


def numbers(folder: Path) -> Any:
    """What a comparison found, without what is measured in seconds."""
    seconds = {"compute": {"seconds", "rl_seconds", "cold_start_seconds"}}
    parts = {"arms": {"__all__": seconds}, "config": True, "machine": True, "versions": True}
    return Comparison.read(folder).model_dump(exclude=parts)


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    config = small_one(folder)
    compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False)
    return folder / "compared"


def test_arms_take_equal_steps_but_one_takes_equal_compute(whole: Path) -> None:
    found = Comparison.read(whole)
    assert set(found.arms) == {"base-ntp", "base-ntr", *NAMES}
    assert found.seeds == [5, 6]
    assert (whole / "figures" / "arms.png").exists()
    took: dict[str, Any] = {name: found.arms[name].compute for name in NAMES}
    assert [took[name].steps for name in ("ntp", "rpt", "rmt")] == [2, 2, 2]
    assert took["ntp-equal-compute"].steps > 10
    assert took["ntp-equal-compute"].operations == pytest.approx(took["rmt"].operations, rel=0.1)
    assert took["ntp"].rl_operations == took["ntp"].rl_tokens == took["rpt"].ntp_tokens == 0
    assert 0 < took["rmt"].rl_operations < took["rmt"].operations
    assert sum(took["rmt"].rl_tokens_by_tier) == took["rmt"].rl_tokens


def test_given_again_nothing_is_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, was = stamps(whole), numbers(whole)
    config = small_one(whole.parent)
    monkeypatch.setattr(compare_module, "run", lambda *_, **__: pytest.fail("a run was started"))
    compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False)
    (whole / "report.md").unlink()
    monkeypatch.setattr("rmt_mini.runs.journal.machine", dict)  # a report may be written on another one
    main(["compare", "laptop", "--out", str(whole), "--report-only"])
    assert (whole / "report.md").exists()
    assert (stamps(whole), numbers(whole)) == (before, was)
    ran = Notes.read(whole / "runs/rmt-seed5")
    assert (Comparison.read(whole).machine, Comparison.read(whole).versions) == (ran.machine, ran.versions)


def test_stopped_in_the_middle_and_resumed(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, started = threading.Event(), 0

    def stopping(config: RMTConfig, **given: Any) -> Any:
        nonlocal started
        started += 1
        return run(config, on_step=lambda _: stop.set() if started == 3 else None, **given)

    config, folder = small_one(tmp_path), tmp_path / "compared"
    with monkeypatch.context() as patch:
        patch.setattr(compare_module, "run", stopping)
        with pytest.raises(Stopped, match=rf"^stopped; .*: rmt-mini resume {folder}$"):
            compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False, stop=stop)
    assert started == 3
    assert Notes.read(run_folder(folder, "rmt", 5)).status == "interrupted"
    with pytest.raises(UserError, match=r"6 runs are missing, '.*ntp-seed6' first"):
        report(folder)
    done = {path: stamp for path, stamp in stamps(folder).items() if "rmt-seed5" not in path}
    go_on(folder, workers=1, progress=False)
    assert {path: stamp for path, stamp in stamps(folder).items() if path in done} == done
    assert numbers(folder) == numbers(whole)


def test_arms_and_seeds_may_be_added_but_settings_not_changed(tmp_path: Path) -> None:
    config, folder = small_one(tmp_path), tmp_path / "compared"
    compare(config, arms_named(config, ["rmt"]), seeds=1, workers=1, progress=False)
    before = stamps(folder)
    compare(config, arms_named(config, ["ntp"]), seeds=1, workers=1, progress=False)
    assert before.items() <= stamps(folder).items()
    assert "ntp" in Comparison.read(folder).arms
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("precious")
    for changes, words in (
        ({"learning_rate": 0.5}, r"a comparison with other settings \(learning_rate\); choose another"),
        ({"out": str(tmp_path / "mine")}, "is in use"),
        ({"out": str(tmp_path / "new"), "model": str(tmp_path / "absent")}, "model '.*absent' is neither"),
    ):
        other = config.replace(**changes)
        with pytest.raises(UserError, match=words):
            compare(other, arms_named(other), seeds=1, workers=1, progress=False)
    assert not (tmp_path / "new").exists()


def test_a_plan_given_again_leaves_no_run_out() -> None:
    config = preset("micro")
    first, then = (
        ComparisonPlan(config=config, arms=arms_named(config, names), seeds=seeds, bases=1, control_seeds=fewer)
        for names, seeds, fewer in ((["rpt", "sft"], 2, None), (["ntp", "rlp"], 5, 1))
    )
    both = then.added_to(first)
    assert [arm.name for arm in both.arms] == ["ntp", "sft", "rpt", "rlp", "rmt"]
    assert (both.seeds, both.control_seeds) == (5, 2)
    without = first.model_copy(update={"arms": arms_named(config, ["rpt"])})  # has no control, so it asks for no seeds
    assert then.added_to(without).control_seeds == 1
    assert first.added_to(then) == both
    assert first.added_to(first) == first


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"use_budget": False}, ["rmt-no-budget"]),
        ({"budget_decay": 1.0}, ["rmt-short-budget"]),
        ({"use_curriculum": False}, ["rmt-no-curriculum", "rmt-reversed-curriculum"]),
        ({"preset": "paper"}, ["rmt-paper"]),
    ],
)
def test_an_arm_that_is_the_method_is_left_out_or_refused_by_name(changes: dict[str, Any], names: list[str]) -> None:
    given = {"preset": "micro"} | changes
    config = preset(given.pop("preset"), **given)
    left = {arm.name for arm in arms_named(preset("micro"))} - {arm.name for arm in arms_named(config)}
    assert {*names} <= left
    for name in names:
        with pytest.raises(UserError, match=f"arm '{name}' is the method itself; leave it out of --arms"):
            arms_named(config, [name])


def test_small_models_share_the_cores_and_a_gpu_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "cpu_count", lambda: 16)
    monkeypatch.setattr(compare_module, "free_memory", lambda _: (9 * 10**9, 10**11))
    assert [usual_workers(preset(name, device="cpu")) for name in ("abacus", "laptop")] == [16, 1]
    monkeypatch.setattr(compare_module, "choose_device", torch.device)
    assert [usual_workers(preset(name, device="cuda")) for name in ("abacus", "laptop")] == [2, 1]


def test_few_positions_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "go_on", lambda *_: "")
    for positions in (24, 421):
        config = small_one(tmp_path, evaluation_positions=positions, out=str(tmp_path / str(positions)))
        compare(config, arms_named(config), seeds=2)
    (said,) = (one.getMessage() for one in caplog.records if one.name == "rmt_mini")
    assert said.startswith("With 24 positions and 2 runs an arm")
    assert "For that take 421 positions" in said


SITTING = {"steps": 2, "documents_per_step": 3, "group_size": 4, "budget_start": 4, "evaluation_fraction": 0.25}


def test_exams_are_taken_by_all_and_once(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(exams_module, "go_on", lambda *_: "")
        exams_module.exams(whole)  # of a model that is not the micro-world's
        assert ExamPlan.read(whole / "exams/gym-chain_sum").arms == ["base", "ntp", "rpt", "rmt"]
    tokenizers = {world.name: make_tokenizer(world) for world in WORLDS.values()}  # each takes half a second
    monkeypatch.setattr(exams_module, "make_tokenizer", lambda world: tokenizers[world.name])
    settings: dict[str, Any] = {"source": "micro", "count": 8, "samples": 2, "every": 1, "changes": SITTING}
    stop, started, path = threading.Event(), [], whole / "exams/micro"

    def stopping(*given: Any) -> Any:
        started.append(given[4]["out"])
        if len(started) == 2:
            stop.set()
        return posttrain_run(*given)

    with monkeypatch.context() as patch:
        patch.setattr(exams_module, "posttrain_run", stopping)
        with pytest.raises(Stopped, match=rf"^stopped; .*: rmt-mini resume {path}$"):
            exams_module.exams(whole, ["rmt"], workers=1, progress=False, stop=stop, **settings)
    first = path / "base-seed5/run.json"
    stamp = first.stat().st_mtime_ns
    main(["resume", str(path)])
    assert f"Report       {whole / 'report.md'}" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == stamp
    found = PostTraining.read(whole).exams["micro"]
    assert list(found.arms) == ["base", "rmt"]
    assert [one.step for one in found.arms["rmt"]] == [0, 1, 2]
    assert found.seeds == [5, 6]
    assert (whole / "figures" / "posttraining-micro.png").exists()
    exams_module.exams(whole, ["rmt"], workers=1, progress=False, **(settings | {"source": "micro-text"}))
    assert json.loads((whole / "posttraining.json").read_text()).keys() == {"micro", "micro-text"}
    assert (whole / "report.md").read_text().count("## Post-training") == 2
    assert Notes.read(path / "rmt-seed6").settings.model == str(run_folder(whole, "rmt", 6) / "checkpoint")
    plan = ComparisonPlan.read(whole)
    plan.model_copy(update={"control_seeds": 1}).write(whole)
    with pytest.raises(UserError, match="arm 'ntp-equal-compute' ran with fewer seeds than rmt"):
        exams_module.exams(whole, ["ntp-equal-compute"], workers=1, progress=False, **(settings | {"source": "abacus"}))
    plan.write(whole)
    saving = settings | {"changes": SITTING | {"save_every": 1}}  # which changes no result
    exams_module.exams(whole, ["rmt"], workers=1, **saving)
    for changes, words in (({"count": 14}, "other settings \\(count\\)"), ({"arms": ["sft"]}, "arm 'sft' is not in")):
        with pytest.raises(UserError, match=words):
            exams_module.exams(whole, workers=1, **(settings | changes))


# Bases


def test_arms_begin_with_every_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[str, RMTConfig] = {}

    def made(config: RMTConfig, **_: Any) -> None:
        path = Path(config.out)
        begun[path.name] = config
        arm, seed, _ = in_name(path)
        a_run(path.parent, path.name.removesuffix(f"-seed{seed}"), seed, 0.5, 5, config=config)
        if arm == "rmt" and config.model == "micro-1":  # which reads half as much, so its equal takes half the steps
            metrics = path / "metrics.jsonl"
            metrics.write_text(
                metrics.read_text().replace(
                    '"forward_tokens": 100, "backward_tokens": 50', '"forward_tokens": 50, "backward_tokens": 25'
                )
            )

    def sat(checkpoint: str, source: str, count: int, samples: int, changes: dict[str, Any], *_: Any) -> None:
        path = Path(changes["out"])
        begun[path.name] = checkpoint
        assert (changes["device"], changes["dtype"]) == ("cpu", "float32")  # as mid-training had
        an_exam(path.parent, path.name.removesuffix(f"-seed{changes['seed']}"), changes["seed"], {0: 1, 1: 2})
        notes(RMTConfig(seed=changes["seed"])).write(path)

    for name, value in (
        ("run", made),
        ("prepare", lambda *_: SimpleNamespace(policy=None)),
        ("format_for", lambda *_: None),
        ("locate_model", lambda _: None),
    ):
        monkeypatch.setattr(compare_module, name, value)
    monkeypatch.setattr(exams_module, "posttrain_run", sat)
    config = small_one(tmp_path, model="micro", device="cpu", dtype="float32")
    compare(config, arms_named(config, ["ntp-equal-compute"]), seeds=2, workers=1, progress=False, bases=2)
    assert {name: (one.model, one.seed) for name, one in begun.items() if name.startswith("rmt")} == {
        "rmt-seed5": ("micro", 5), "rmt-seed6": ("micro", 6),
        "rmt-base1-seed5": ("micro-1", 5), "rmt-base1-seed6": ("micro-1", 6),
    }  # fmt: skip
    # 3 steps of 100 + 2 x 50 token passes are 600, and a step on 40 tokens of documents takes 120
    assert begun["ntp-equal-compute-seed6"].steps == 5
    assert begun["ntp-equal-compute-base1-seed6"].steps == 2  # 2.5, to even
    folder = tmp_path / "compared"
    assert (Comparison.read(folder).bases, Comparison.read(folder).seeds) == (2, [5, 6])
    exams_module.exams(folder, source="micro", workers=1, progress=False)
    assert begun["base-base1-seed6"] == "micro-1"
    assert begun["base-seed6"] == "micro"
    assert begun["rmt-base1-seed6"] == str(run_folder(folder, "rmt", 6, 1) / "checkpoint")
    assert PostTraining.read(folder).exams["micro"].bases == 2


# Over the values of a setting


@pytest.mark.slow
def test_a_map_is_stopped_resumed_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_one(tmp_path, length_weight=RMTConfig().length_weight)
    folder, stop, begun = tmp_path / "compared", threading.Event(), list[str]()

    def counting(config: RMTConfig, **given: Any) -> Any:
        begun.append(config.out)
        if len(begun) == 3:
            stop.set()
        return run(config, **given)

    monkeypatch.setattr(compare_module, "run", counting)
    with pytest.raises(Stopped, match=rf"rmt-mini resume {folder}$"):
        sweep.over(config, "length_weight", [0.0, 0.5], ["ntp"], 1, 1, False, stop)
    main(["resume", str(folder)])
    expected = [f"length_weight={value}/runs/{arm}-seed5" for value in (0.0, 0.5) for arm in ("ntp", "rmt")]
    assert begun == [str(folder / one) for one in expected]
    found = Map.read(folder)
    drawn = {arm: list(cells) for arm, cells in found.levels["average"].arms.items()}
    assert drawn == {"ntp": [0, 0.5], "rmt": [0, 0.5]}
    assert [Notes.read(Path(one)).settings.length_weight for one in begun] == [0, 0, 0.5, 0.5]
    for name in ("report.md", "map.json", "figures/map.png", "length_weight=0.5/report.md"):
        (folder / name).unlink()
    flags = config_flags(config)
    del flags[(place := flags.index("--length-weight")) : place + 2]
    same = ["compare", "custom", *flags, "--over", "length-weight=0.5,0"]
    main([*same, "--report-only"])
    main([*same, "--arms", "ntp", "--seeds", "1", "--workers", "1"])
    assert len(begun) == 4
    assert Map.read(folder) == found
    assert (folder / "figures/map.png").exists()
    assert (folder / "length_weight=0.5/report.md").exists()
    for field, changes in (("budget_decay", {}), ("length_weight", {"learning_rate": 0.5})):
        with pytest.raises(UserError, match="holds another map or other settings"):
            sweep.over(config.replace(**changes), field, [0.2, 0.4], ["ntp"], 1, 1, False)
    with pytest.raises(UserError, match=r"budget_min is 4; it must not exceed budget_start \(3\)"):
        sweep.over(config.replace(budget_min=4, out=str(tmp_path / "new")), "budget_start", [8, 3], ["ntp"])
    assert not (tmp_path / "new").exists()


# Worker processes


def job(path: Path, stop: threading.Event | None) -> Path:
    """Leave a file; then, by its name, end, fail, be killed as the system kills, or work on for ever."""
    path.with_suffix(f".{os.getpid()}").touch()
    if path.stem == "bad":
        raise UserError("steps is 0; give more")
    if path.stem == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    while path.stem == "long":
        time.sleep(0.05)
    return path


def done(folder: Path, names: Sequence[str], workers: int, stop: threading.Event | None = None) -> list[str]:
    """Do jobs of these names, and return the names of all that began."""
    finish("Jobs", job, [[folder / name for name in names]], workers, False, stop, folder)
    return sorted(path.stem for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "words"), [("bad", "steps is 0"), ("killed", r"a worker process was killed, .* fewer --workers")]
)
def test_a_job_that_fails_ends_the_others(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        done(tmp_path, ["long", name], 2)
    assert not living(tmp_path)


def test_a_stop_ends_every_worker(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Thread(target=lambda: (until(lambda: len(living(tmp_path)) == 2), stop.set()), daemon=True).start()
    with pytest.raises(Stopped):
        done(tmp_path, ["long", "long", "last"], 2, stop)
    assert [path.stem for path in tmp_path.iterdir()] == ["long", "long"]
    assert not living(tmp_path)


def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.runs.test_compare import done\n"
        "if __name__ == '__main__': done(Path(sys.argv[1]), ['long', 'long'], 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    until(lambda: len(living(tmp_path)) == 2)
    parent.kill()
    parent.wait(60)
    until(lambda: not living(tmp_path))


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 500
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def living(folder: Path) -> list[Path]:
    """Return the files of the jobs whose processes live; a zombie is dead."""
    states = {path: Path("/proc") / path.suffix[1:] / "status" for path in folder.iterdir()}
    return [path for path, status in states.items() if status.exists() and "State:\tZ" not in status.read_text()]


@pytest.mark.slow
def test_interrupted_and_killed_in_the_middle(tmp_path: Path) -> None:
    """By Ctrl-C, then by SIGKILL: what was done stays, and the outcome is that of an unbroken comparison."""
    names, many = ("ntp", "ntp-equal-compute", "rmt"), {"steps": 4, "state_seconds": 0.0}
    (tmp_path / "whole").mkdir()
    config = small_one(tmp_path / "whole", **many)
    compare(config, arms_named(config, names), seeds=2, workers=2, progress=False)
    folder = tmp_path / "compared"
    arguments = ["laptop", "--arms", ",".join(names), "--seeds", "2", "--workers", "2"]
    arguments += config_flags(small_one(tmp_path, **many))

    def start() -> subprocess.Popen[str]:
        # a session of its own, so that a signal can go to all of it as a terminal sends it
        return subprocess.Popen(
            command("compare", *arguments), env=environment(), text=True, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    before: dict[str, int] = {}
    ended: set[Path] = set()

    def further() -> bool:
        return {one for one in folder.glob("runs/*") if is_done(one)} > ended and any(folder.glob("runs/*/state"))

    for number in (signal.SIGINT, signal.SIGKILL):
        process = start()
        until(further)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=120)
        assert "Traceback" not in said
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert number == signal.SIGKILL or said.strip().splitlines()[-1].endswith(f"rmt-mini resume {folder}")
        time.sleep(1)  # a killed parent's workers see it within a moment
        assert before.items() <= stamps(folder).items()
        ended = {one for one in folder.glob("runs/*") if is_done(one)}
        before = {name: stamp for name, stamp in stamps(folder).items() if Path(name).parents[0] in ended}
    process = start()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert before.items() <= stamps(folder).items()
    assert numbers(folder) == numbers(tmp_path / "whole" / "compared")


def test_an_arm_that_the_answer_format_rules_out_is_refused_before_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_one(tmp_path, answer_format="auto")
    byte_tokenizer(template="<|user|>{{ messages[0].content }}<|end|><|assistant|>").save_pretrained(tmp_path / "model")
    monkeypatch.setattr(Policy, "parameters", 2 * 10**9)  # "auto" is a chat then
    with pytest.raises(UserError, match=r"information-gain.* needs answers of one token"):
        compare(config, arms_named(config, ["ntp", "rlp"]), seeds=1, workers=1, progress=False)
    assert not (tmp_path / "compared").exists()


def test_documented_comparisons_find_the_models_that_they_begin_with() -> None:
    root = Path(__file__).resolve().parents[2]
    pages = [root / "README.md", root / "data/PROTOCOL.md", *sorted((root / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    commands = set(re.findall(r"rmt-mini compare (\w+)(?: --model '(.*?)')?.*?--bases (\d)", text))
    assert ("abacus", "", "3") in commands
    for name, model, bases in commands:
        if model:  # a command before it makes them
            folder = model.removesuffix("/checkpoint")
            assert all(f"--out {folder.replace('{base}', str(base))}\n" in text for base in range(int(bases)))
        else:
            require_bases(preset(name), int(bases))


def test_bases_of_ones_own_are_numbered_folders(tmp_path: Path) -> None:
    for base, seed in enumerate((1, 2)):
        save(closing(seed=seed), tmp_path / "mine" / str(base))
    config = small_one(tmp_path, model=str(tmp_path / "mine" / "{base}"))
    with pytest.raises(UserError, match=r"mine/2' is neither"):
        compare(config, arms_named(config, ["rmt"]), seeds=1, workers=1, progress=False, bases=3)
    folder, _ = compare(config, arms_named(config, ["rmt"]), seeds=1, workers=1, progress=False, bases=2)
    runs = [Notes.read(run_folder(folder, "rmt", 5, base)) for base in (0, 1)]
    assert [run.config.model for run in runs] == [str(tmp_path / "mine" / str(base)) for base in (0, 1)]
    assert runs[0].model_digest != runs[1].model_digest
    with pytest.raises(UserError, match=r"bases is 2, but of 'laptop' there is one; give fewer, or {base}"):
        require_bases(config.replace(model="laptop"), 2)
