"""Nothing that the package writes takes the place of a user's file."""

import logging
import stat
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from rmt_mini.cli import main
from rmt_mini.errors import UserError
from rmt_mini.files import Evaluation, Measured, write_keeping, write_whole
from tests import lessons

DATA = Path(__file__).resolve().parents[1] / "data"


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_that_is_replaced_is_kept_under_a_free_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "new" / "a.json"
    assert write_keeping(path, "1")
    assert not write_keeping(path, "1")
    assert caplog.text == ""
    assert write_keeping(path, "2")
    assert write_keeping(path, "3")
    path.write_bytes(b"\xff no text")
    assert write_keeping(path, "4", old=tmp_path / "old")
    assert (tmp_path / "old" / "a.old-1.json").read_bytes() == b"\xff no text"
    assert texts(tmp_path / "new") == {"a.json": "4", "a.old-1.json": "1", "a.old-2.json": "2"}
    assert caplog.text.count("is kept as") == 3
    assert str(tmp_path / "new" / "a.old-2.json") in caplog.text


def test_the_file_a_link_leads_to_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    write_keeping(tmp_path / "link", "new")
    assert texts(tmp_path) == {"mine": "mine", "link": "new", "link.old-1": "mine"}


@pytest.mark.parametrize("write", [write_whole, write_keeping])
def test_a_file_that_is_replaced_hands_on_its_rights(write: Callable[[Path, str], object], tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    for mode in (0o600, 0o644):
        path.write_text("old")
        path.chmod(mode)
        write(path, "new")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


@pytest.mark.parametrize("name", [".", "/dev/null"])
def test_a_folder_or_a_device_is_refused_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["evaluate", "absent", "--out", name], ["grade", "absent.ipynb", "--json", name]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        caught = capsys.readouterr()
        assert (caught.out, caught.err) == ("", f"error: {name!r} is a folder or a device; give the name of a file\n")
    assert Path("/dev/null").is_char_device()
    assert texts(tmp_path) == {}


def test_evaluate_keeps_the_file_that_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Evaluation.read(DATA / "laptop").after
    monkeypatch.setattr("rmt_mini.runs.run.evaluate_checkpoint", lambda *_: measured)
    (tmp_path / "out.json").write_text("mine")
    main(["evaluate", "run", "--out", str(tmp_path / "out.json")])
    assert Measured.model_validate_json((tmp_path / "out.json").read_text()) == measured
    assert (tmp_path / "out.old-1.json").read_text() == "mine"


def test_a_lesson_that_was_edited_while_it_ran_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("before")

    def ran(*_: object) -> tuple[object, float, float]:
        path.write_text("typed meanwhile")
        return nbformat.v4.new_notebook(), 1.0, 1.0

    monkeypatch.setattr(lessons, "run", ran)
    with pytest.raises(UserError, match="was edited while it ran"):
        lessons.execute(path)
    assert path.read_text() == "typed meanwhile"
