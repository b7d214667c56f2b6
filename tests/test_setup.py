"""The set-up: versions written once, one-way imports, a light package, files that name no machine."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import rmt_mini
from rmt_mini.report import markdown
from tests.record import digests

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rmt_mini"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ON_DEMAND = {"trackio", "wandb"}  # extras that nothing installs by itself; trackio does not fit the pinned pillow
INSTALLED = {name: lines for name, lines in EXTRAS.items() if name not in ON_DEMAND}
REQUIREMENTS = sorted({*PROJECT["dependencies"], *(line for extra in INSTALLED.values() for line in extra)})

# A wing may import only wings before it in this list.
ORDER = (
    "errors", "config", "records", "arms", "files", "method", "engine", "worlds", "stages", "report", "runs", "bench",
    "scale", "teaching", "cli", "__main__",
)  # fmt: skip
# Models are TRL's in scale; of the engine it uses what knows text and the machine's memory.
ENGINE_IN_SCALE = {"prompt", "text", "memory"}


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Versions


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines[1:] if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines[1:]}


def test_versions_are_written_once_and_pinned_within_their_bounds() -> None:
    assert rmt_mini.__version__ == PROJECT["version"]
    assert not {"pip", "setuptools", "rmt-mini"} & pins().keys()
    for requirement in map(Requirement, REQUIREMENTS):
        assert {spec.operator for spec in requirement.specifier} == {">="}
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == ["python", "pip"]
    pinned, installed = pip["pip"]
    assert pinned == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", installed)
    assert extras
    assert set(extras[1].split(",")) == {"notebooks", "test"} <= EXTRAS.keys()
    extras = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert extras
    assert set(extras[1].split(",")) == INSTALLED.keys()


def test_the_citation_names_this_package_as_it_is() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert cited["title"] == f"{PROJECT['name']}: {PROJECT['description']}"
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [one["name"] for one in cited["authors"]] == [one["name"] for one in PROJECT["authors"]]
    assert cited["keywords"] == PROJECT["keywords"]
    (paper,) = cited["references"]
    entry = markdown.render("bibtex.j2", version=PROJECT["version"], description=PROJECT["description"])
    assert f"```bibtex\n{entry}```" in (ROOT / "README.md").read_text(encoding="utf-8")
    for said in (cited["title"], f"version = {{{PROJECT['version']}}}", paper["title"], "arXiv:2509.24375"):
        assert said in entry
    assert "2509.24375" in paper["url"]


def test_the_container_agrees_with_the_project() -> None:
    folder = ROOT / ".devcontainer"
    space = json.loads((folder / "devcontainer.json").read_text())
    assert space.keys() == {"name", "build", "remoteUser", "postCreateCommand", "customizations"}
    assert (folder / space["build"]["context"]).resolve() == ROOT
    lines = re.findall(r"^([A-Z]+) (.+)$", (folder / space["build"]["dockerfile"]).read_text(), re.MULTILINE)
    said = {word: [text for first, text in lines if first == word] for word, _ in lines}

    python = re.fullmatch(r"python:([\d.]+)-\w+", *said["FROM"])
    assert python
    assert SpecifierSet(PROJECT["requires-python"]).contains(python[1])
    pip = [shlex.split(one) for run in said["RUN"] for one in run.split(" && ") if one.startswith("pip ")]
    assert pip == [
        ["pip", "install", "-c", "constraints.txt", "torch"],
        ["pip", "install", "-c", "constraints.txt", "-e", ".[notebooks]", "jupyterhub"],
    ]
    assert said["USER"] == [space["remoteUser"]] != ["root"]
    assert f"useradd --create-home --uid 1000 {space['remoteUser']} " in said["RUN"][0]
    assert space["postCreateCommand"] == "pip install --no-deps -e ."
    editor = space["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert f"python -m venv {Path(editor).parents[1]}" in said["RUN"][1]
    assert said["ENV"][0].startswith(f"PATH={Path(editor).parent}:")
    command = json.loads(said["CMD"][0])
    assert command[:2] == ["jupyter", "lab"]
    assert f"--port={said['EXPOSE'][0]}" in command
    assert (ROOT / command[-1].partition("/lab/tree/")[2]).is_file()


def licence_of(name: str) -> str:
    """Return the licence that an installed package states: as an expression, as a classifier, or in its first line."""
    stated = metadata(name)
    classified = [one.rpartition(" :: ")[2] for one in stated.get_all("Classifier") or [] if "OSI Approved" in one]
    return stated["License-Expression"] or next(iter(classified), "") or str(stated["License"]).splitlines()[0]


def test_dependencies_are_listed_with_version_and_licence() -> None:
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| (\d[\w.]*) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    wanted = {canonicalize_name(Requirement(line).name) for line in REQUIREMENTS}
    assert [name for name, *_ in rows] == sorted(wanted)
    pinned = pins()
    for name, version, licence, purpose in rows:
        assert version == pinned[name], name
        assert purpose
        try:
            assert licence == licence_of(name), name
        except PackageNotFoundError:
            continue  # an extra that is not installed here


# The repository's address


@pytest.mark.parametrize(
    ("address", "links"),
    [
        ("", []),
        (
            "https://github.com/someone/rmt",
            [
                "https://mybinder.org/v2/gh/someone/rmt/main?urlpath=lab/tree/notebooks/00_start_here.ipynb",
                "https://colab.research.google.com/github/someone/rmt/blob/main/notebooks/00_start_here.ipynb",
            ],
        ),
        (
            "https://example.org/rmt.git",
            [
                "https://mybinder.org/v2/git/https%3A%2F%2Fexample.org%2Frmt/main"
                "?urlpath=lab/tree/notebooks/00_start_here.ipynb"
            ],
        ),
    ],
)
def test_badges_follow_the_address(tmp_path: Path, address: str, links: list[str]) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "pyproject.toml", "docs/badges.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    project = re.sub(r"(?m)^\[project.urls\]\n(.+\n)*", "", (tmp_path / "pyproject.toml").read_text("utf-8"))
    with (tmp_path / "pyproject.toml").open("w", encoding="utf-8") as file:
        file.write(project + (f'\n[project.urls]\nRepository = "{address}"\n' if address else ""))
    subprocess.run([sys.executable, tmp_path / "docs/badges.py"], check=True)
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert re.findall(r"^\[!\[Open in \w+\]\(https://\S+\.svg\)\]\((\S+)\)$", readme, re.MULTILINE) == links
    unmarked = re.compile("<!-- badges -->.*<!-- /badges -->", re.DOTALL)
    assert unmarked.sub("", readme) == unmarked.sub("", (ROOT / "README.md").read_text("utf-8"))


def test_badges_are_those_of_the_address_in_pyproject() -> None:
    command = "import sys; sys.path[:0] = ['docs']; import badges as b; print(b.badges(b.repository()), end='')"
    block = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- badges -->\n")[2]
    assert block.partition("<!-- /badges -->")[0].strip() == python(command)


# The order of the wings


def imports_of(source: str) -> set[str]:
    """Return the modules of the package that a module imports, wherever in its source."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "rmt_mini":  # a public name counts as its module
            found |= {rmt_mini._HOME.get(alias.name, f"rmt_mini.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "import by the full name"
            found.add(str(node.module))
    return {name for name in found if name.startswith("rmt_mini.") and name != "rmt_mini.__version__"}


def test_scale_leaves_models_to_trl() -> None:
    rooms = {*(PACKAGE / "scale").glob("*.py")} - {PACKAGE / "scale/planner.py"}  # which plans the tree's runs as well
    used = set().union(*(imports_of(path.read_text()) for path in rooms))
    assert {name.split(".")[2] for name in used if name.startswith("rmt_mini.engine.")} <= ENGINE_IN_SCALE
    code = "import sys, rmt_mini.scale.train, rmt_mini.scale.sampling; print('rmt_mini.engine.model' in sys.modules)"
    assert python(code) == "False"


def test_imports_run_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        wing = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if wing != "__init__":  # which imports everything, lazily
            allowed = ORDER[: ORDER.index(wing) + 1]
            used = sorted(name for name in imports_of(path.read_text()) if name.split(".")[1] not in allowed)
            wrong += [f"{path.relative_to(PACKAGE)} imports {name}" for name in used]
    assert wrong == []


def test_rooms_have_names_of_their_own() -> None:
    names = [path.stem for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
    assert "utils" not in names
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


# The package itself


def test_imports_of_the_package_and_its_command_line_load_nothing_heavy() -> None:
    loaded = python("import rmt_mini.cli, sys; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "cyclopts" in loaded
    assert not {"torch", "transformers", "numpy", "scipy", "matplotlib"} & {*loaded}


def test_public_names_resolve_and_are_the_same_in_both_lists() -> None:
    for name, home in rmt_mini._HOME.items():
        module = import_module(home)  # first, and it does not take the name's place
        assert name in dir(rmt_mini)
        assert getattr(rmt_mini, name) is getattr(module, name)
    branches = [one for one in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(one, ast.If)]
    (for_checkers,) = [one for one in branches if isinstance(one.test, ast.Name)]
    imported = [node for node in for_checkers.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imported for alias in node.names} == rmt_mini._HOME
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rmt_mini.nonsense


# What the repository holds


def tracked_files() -> list[Path]:
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_registry_or_this_machine() -> None:
    # put together here, so that this file does not hold them
    hosts = ["pypi" + ".org", "files.python" + "hosted.org", "download.py" + "torch.org"]
    hosts += ["registry.npm" + "js.org", "conda.ana" + "conda.org"]
    folders = ["/" + name + "/" for name in ("work", "root", "opt/wheels", "opt/pypi")]
    pattern = "|".join([*map(re.escape, hosts), *(r"(?<![\w.~])" + folder for folder in folders)])
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if any(word in text for word in (*hosts, *folders)):  # which is found sooner than the pattern
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(pattern, text)]
    assert found == []


# What is recorded


def test_every_recorded_file_has_its_digest_in_provenance() -> None:
    rows = re.findall(r"^\| `(.+)` \| `([0-9a-f]{64})` \|$", (ROOT / "data/PROVENANCE.md").read_text(), re.MULTILINE)
    assert len(rows) > 100
    assert dict(rows) == digests(ROOT / "data")
