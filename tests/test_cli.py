import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmt_mini.cli import main
from rmt_mini.config import PRESETS, RMTConfig, preset
from rmt_mini.errors import Stopped
from tests.fakes import make_tiny_policy
from tests.runs.test_run import save
from tests.test_config import FIELDS, LIKELY, made

STORY = "\n\n\n".join(f"Tale {n}. The cat sat on the mat and the dog ran {n} times around it." for n in range(6))
FLAGS = {name: "--" + name.replace("_", "-") for name in FIELDS if name != "preset"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    save(make_tiny_policy(), folder)
    return str(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    held = {"story.txt": STORY, "t.txt": "Hi.\n\n\nHo.", "m/config.json": "{", "m/model.safetensors": ""}
    for name, text in {**held, "mine/metrics.jsonl": "precious", "c/compare.json": "{}"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RMTConfig]:
    """The configurations with which `rmt-mini run` would have run."""
    seen: list[RMTConfig] = []

    def run(config: RMTConfig, **_: Any) -> SimpleNamespace:
        seen.append(config)
        return SimpleNamespace(folder=Path("there"), table="")

    monkeypatch.setattr("rmt_mini.runs.run.run", run)
    return seen


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    """Exit code, output, and lines of stderr."""
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    caught = capsys.readouterr()
    return code, caught.out, caught.err.splitlines()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(here)
    code, out, lines = outcome(arguments, capsys)
    lines = [line for line in lines if line and not line.startswith("Loading weights: ")]  # a bar of transformers
    assert (code, out, len(lines)) == (2, "", 1), lines
    assert re.match(f"error: .*{words}", lines[0]), lines[0]
    assert files(here) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run --stepz 3", r"--stepz.*--steps"),
        ("run --steps 2.5", r"--steps: '2.5' is not a whole number"),
        ("run --steps 3 --steps 4", r"--steps specified multiple times"),
        ("run --loss-per step", r'"step" for --loss-per. Choose from: "token", "rollout"'),
        ("run laptop more", r"more"),
        ("fly", r'Unknown command "fly"'),
        ("evaluate absent", r"'absent/run.json' cannot be read \(No such file"),
        ("posttrain micro --count 1", r'"1" for --count. Must be >= 2'),
        ("compare micro --arms rmt,rlhf", r"arm 'rlhf' is unknown; the arms are ntp, .*rmt-shuffled-reward"),
        ("compare micro --report-only --out absent", r"'absent/compare.json' cannot be read"),
        ("compare --report-only --arms rmt", r"--report-only .*leave out --arms"),
        ("compare micro --control-seeds 0", r'"0" for --control-seeds. Must be >= 1'),
        (
            "compare micro --control-seeds 1 --over seed=1,2",
            r"--over gives every arm all seeds; leave out --control-seeds",
        ),
        ("compare micro --bases 4", "bases is 4, but of 'micro' there are 3; give fewer, or {base} in a folder's name"),
        ("compare micro --over lr=1,2", r"'lr' is not a setting that is a number; give FIELD=a,b,c, as in"),
        ("compare micro --over seed=1,2", r"'seed' is not a setting that is a number"),
        ("compare micro --over use_rl=0,1", r"'use_rl' is not a setting that is a number"),
        ("compare micro --over steps=8,2.5", r"steps is '2.5'; give a whole number of at least 1"),
        ("compare micro --over ntp-weight=0.1,-1", r"ntp_weight is -1.0; give a number of at least 0"),
        ("compare micro --over ntp_weight=0.1", r"--over ntp_weight=0.1 has fewer than two values"),
        ("compare micro --over ntp_weight=0.1,0.10", r"--over ntp_weight=0.1,0.10 has .* or one twice"),
        ("compare laptop --over sayings=1,2", r"sayings is 2.0; only the corpus 'abacus' has it"),
        ("compare micro --over ntp_weight=0.1,1 --ntp-weight 1", r"ntp_weight is what --over changes; leave out"),
        ("compare micro --over ntp_weight=0.1,1 --arms rlhf", r"arm 'rlhf' is unknown"),
        ("compare micro --over ntp_weight=0.1,1 --model absent-model", r"model 'absent-model' is neither"),
        (
            "compare micro --over ntp_weight=0.1,1 --report-only",
            r"'runs/over-ntp_weight-micro/over.json' cannot be read",
        ),
        ("sensitivity micro --fields steps", r"setting 'steps' is not varied here; those that are: budget_"),
        ("seeds --out all", r"no run folder is given"),
        ("grade --json marks.json", r"no notebook is given"),
        ("plan micro --interval 0", r"--interval. Must be > 0"),
        ("plan --gpu a100", r"--gpu and --way describe GPUs elsewhere; give --gpus as well"),
        ("plan --device toaster --model MODEL", r"device 'toaster'"),
        ("bench --group-size 1", r"group_size is 1; give a whole number of at least 2"),
        ("bench --parts tree,vllm", r"part 'vllm' is unknown; the parts are sweeps, tree, busy, generate, trl, long"),
        ("launch gpu --machine-rank 0", r"--machine-rank is of use with --run only"),
        ("launch gpu --micro-batch 0", r"micro_batch is 0; give a whole number of at least 1"),
        ("launch gpu --evaluation-positions 9", r"evaluation_positions has no effect on TRL"),
        (
            "preflight --model MODEL --corpus absent.txt",
            r"corpus 'absent.txt' does not exist in the current folder; give",
        ),
        ("preflight --model MODEL --corpus t.txt", r"none of the 1 .* min_document_tokens \(48\)"),
        ("run --model MODEL --corpus story.txt --out mine", r"'mine' is in use; choose another"),
        ("resume c --on-nan skip", r"on_nan is of use with a single run"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, words: str, here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(arguments.replace("MODEL", model).split(), words, here, capsys)


# Help


def test_help_names_commands_fields_groups_and_presets_and_loads_nothing_heavy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = "pretrain run resume compare sensitivity exams posttrain preflight plan launch evaluate seeds bench release"
    helps = {name: outcome([name, "-h"], capsys)[1] for name in [*names.split(), "grade"]}
    code, out, _ = outcome(["--help"], capsys)
    assert code == 0
    assert all(re.search(rf"^\W+{name} ", out, re.MULTILINE) for name in helps)
    wanted = [*FLAGS.values(), "--config", *PRESETS, "Dynamic token budget", "B_0, thought tokens", "token, rollout"]
    for command in ("run", "compare", "sensitivity", "preflight", "plan", "launch"):
        assert [word for word in wanted if word not in helps[command]] == [], command
    assert not {"--model", "--seed"} & set(helps["exams"].split())
    assert {"--micro-batch", "--gpu-memory"} <= set(helps["launch"].split())


def test_python_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "rmt_mini", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"rmt-mini {importlib.metadata.version('rmt-mini')}\n")


# Settings


def test_flags_are_above_a_file_which_is_above_the_preset(
    here: Path, ran: list[RMTConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "my.yaml").write_text("preset: micro\nsteps: 7\nlearning_rate: 3e-4\ntier_thresholds: [0.5, 2]\n")
    (here / "c" / "run.json").write_text(json.dumps({"config": preset("paper", steps=9, out="old").to_dict()}))
    for arguments in (
        ["gpu", "--steps", "7", "--tier-thresholds", "0.5", "2", "--no-use-curriculum", "--length-if-correct"],
        ["--config", "my.yaml", "--steps", "8", "--tier-thresholds", "0.5", "2"],
        ["gpu", "--config", "my.yaml"],
        ["--config", "c", "--no-use-budget"],
        [],
    ):
        assert outcome(["run", *arguments], capsys)[0] == 0
    assert ran == [
        preset("gpu", steps=7, tier_thresholds=(0.5, 2.0), use_curriculum=False, length_if_correct=True),
        preset("micro", steps=8, tier_thresholds=(0.5, 2.0), learning_rate=3e-4),
        preset("gpu", steps=7, tier_thresholds=(0.5, 2.0), learning_rate=3e-4),
        preset("paper", steps=9, use_budget=False),
        preset("laptop"),
    ]


def test_post_training_takes_from_a_run_what_it_has_use_for(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr("rmt_mini.runs.pre_and_post.exams", lambda *given, **_: seen.append(given[6]) or "")
    (here / "run.json").write_text(json.dumps({"config": preset("micro", steps=9, out="x").to_dict()}))
    assert outcome(["exams", "f", "--config", "run.json", "--group-size", "4"], capsys)[0] == 0
    (changes,) = seen
    assert (changes["steps"], changes["group_size"]) == (9, 4)
    assert not {"preset", "out", "seed", "corpus", "ntp_weight"} & changes.keys()
    (here / "my.yaml").write_text("corpus: micro")
    refused(["exams", "f", "--config", "my.yaml"], "corpus has no effect in this command; leave it out", here, capsys)


@given(values=LIKELY)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_flags_give_what_the_constructor_gives(
    values: dict[str, Any], ran: list[RMTConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    values.pop("preset", None)
    arguments = ["laptop"]
    for name, value in values.items():
        if isinstance(value, bool):
            arguments.append(FLAGS[name] if value else f"--no-{FLAGS[name][2:]}")
        else:
            arguments += [FLAGS[name], *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    expected = made(lambda: RMTConfig(preset="laptop", **values))
    ran.clear()
    code, _, lines = outcome(["run", *arguments], capsys)
    assert (code, ran) == (0, [expected]) if expected is not None else (code, ran, len(lines)) == (2, [], 1)


WORDS = st.text(max_size=8) | st.sampled_from(["", "-", "--", "nan", "-inf", "1_0", "9" * 5000]) | st.floats().map(str)


@given(name=st.sampled_from(sorted(FLAGS)), words=st.lists(WORDS.filter(lambda word: "\0" not in word), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_any_words_after_a_flag_run_or_are_refused_in_one_line(
    name: str, words: list[str], ran: list[RMTConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    ran.clear()
    code, _, lines = outcome(["run", "laptop", FLAGS[name], *words], capsys)
    assert not code or (code, ran, [line[:7] for line in lines]) == (2, [], ["error: "])


# Commands


def test_plan_and_preflight_print_and_write_nothing(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, on = files(here), ["--model", model, "--corpus", "story.txt", "--dtype", "float32"]
    code, out, _ = outcome(["plan", *on, "--interval", "0.03"], capsys)
    assert code == 0
    assert re.search(r"time +about [\d.]+ min(.|\n)*memory +about [\d.]+ GB", out)
    assert re.search(r"interval +a difference of two arms within 6.8 points \(1 seed\)", out)  # 1.96 x 0.54 / 240^0.5
    assert "3.0 points either way take 1,245 positions (1 seed), 415 (3 seeds), 249 (5 seeds)" in out
    code, out, _ = outcome(["preflight", *on, "--min-document-tokens", "8", "--preflight-positions", "3"], capsys)
    assert code == 0
    assert re.match(r"tier +positions +accuracy +pass@8 +signal\neasy +\d+ +(-|\d+%)", out)
    assert re.search(r"\nGroups with a signal \d+%; .*\n- ", out)
    assert files(here) == before


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (Stopped("runs/a b"), 130, "Stopped; to go on: rmt-mini resume 'runs/a b'"),
        (OSError(28, "No space left"), 2, "error: no space left"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied"),
        (MemoryError(), 2, "error: out of memory"),
        (ZeroDivisionError(), None, ""),  # a fault of the program keeps its traceback
    ],
)
def test_what_ends_a_command_is_one_line(
    error: BaseException,
    code: int | None,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("rmt_mini.engine.model.load_policy", fail)
    if code is None:
        with pytest.raises(type(error)):
            main(["plan"])
    else:
        found, out, lines = outcome(["plan"], capsys)
        assert (found, out, len(lines)) == (code, "", 1)
        assert lines[0].startswith(line)


def test_the_first_signal_stops_after_the_step_and_the_second_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(config: RMTConfig, stop: threading.Event) -> SimpleNamespace:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        if config.seed:
            signal.raise_signal(signal.SIGINT)
        raise Stopped("there")

    before, wanted = signal.getsignal(signal.SIGTERM), "Stopping after this step; once more stops at once."
    monkeypatch.setattr("rmt_mini.runs.run.run", run)
    assert outcome(["run"], capsys) == (130, "", [wanted, "Stopped; to go on: rmt-mini resume there"])
    assert outcome(["run", "--seed", "1"], capsys) == (130, "", [wanted, "Interrupted."])
    assert signal.getsignal(signal.SIGTERM) is before


WRITES = """
import sys
from rmt_mini import cli
cli._keep_streams_usable()
for _ in range(3):
    print("a line", file=sys.stderr, flush=True)
    print("a result \\u6587", flush=True)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "2>&1 | true", "2>&1 | head -1"])
def test_a_reader_that_goes_away_or_a_closed_stream_ends_no_run(streams: str, tmp_path: Path) -> None:
    command = f'(sleep 0.2; "$0" -c "$1" "$2"; echo $? > "$2.code") {streams}'
    bare = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ["sh", "-c", command, sys.executable, WRITES, str(tmp_path / "end")]
    subprocess.run(done, env=bare, check=False, capture_output=True, timeout=300)
    assert (tmp_path / "end").read_text() == "done"
    assert (tmp_path / "end.code").read_text().strip() == "0"
