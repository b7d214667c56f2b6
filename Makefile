# Two commands on a fresh machine: `make run` and `make test`. Both begin with `make install`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
EXTRAS := benchmark,book,bundle,data,grading,notebooks,posttrain,scale,tensorboard,test

.DEFAULT_GOAL := help
.PHONY: help install run lab slides handouts book badges dist bundle test browser bench replicate clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

install: $(STAMP) ## make the environment in .venv, with pinned versions

run: $(STAMP) ## the main job: mid-train a small model on this machine (more flags: ARGS="--steps 4")
	"$(VENV)/bin/rmt-mini" run laptop $(ARGS)

# On this machine only, and behind the token that JupyterLab makes at every start and prints; it asks no one for updates.
LAB := --ServerApp.ip=127.0.0.1 --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
       --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

lab: $(STAMP) ## open the lessons in JupyterLab
	"$(PY)" -m jupyterlab --ServerApp.root_dir="$(CURDIR)" $(LAB) $(ARGS)

slides: $(STAMP) ## make slides of the lessons in build/slides; they need no network
	"$(PY)" -m docs.make.slides $(ARGS)

# A warning, such as a broken link, is an error.
book: $(STAMP) ## build the book of lessons, docs, results and API in build/book; it needs no network
	"$(PY)" -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/book $(ARGS)

badges: $(STAMP) ## write README's Binder and Colab badges for the repository's address in pyproject.toml
	"$(PY)" docs/badges.py

dist: $(STAMP) ## build a source archive and a wheel in dist/, and check them
	"$(PY)" -m build --no-isolation $(ARGS)
	"$(PY)" -m twine check --strict dist/*

# Made for this machine, or FOR=windows or FOR=macos, whose packages uv finds: pip asks this machine what each one needs.
# ARGS goes to both, such as ARGS="--python-version 3.12".
FOR ?=
BUNDLE ?= build/bundle$(addprefix -,$(FOR))
TAG_windows := win_amd64
TAG_macos := macosx_14_0_arm64
GET := "$(PY)" -m pip download -q --disable-pip-version-check --only-binary=:all: --dest "$(BUNDLE)/wheels"

bundle: $(STAMP) ## gather packages, lessons, slides and weights in build/bundle, for a class without internet (others: FOR=windows)
	rm -rf "$(BUNDLE)"
	"$(PY)" -m build --no-isolation --outdir "$(BUNDLE)/wheels"
	rm "$(BUNDLE)"/wheels/*.tar.gz
ifeq ($(FOR),)
	$(GET) $(ARGS) -c constraints.txt "$$(echo "$(BUNDLE)"/wheels/rmt_mini-*.whl)[notebooks]"
else
	MACOSX_DEPLOYMENT_TARGET=14.0 "$(PY)" -m uv pip compile -q --no-header --python-platform $(FOR) --extra notebooks -c constraints.txt $(ARGS) \
	  pyproject.toml -o "$(BUNDLE)/requirements.txt"
	$(GET) --platform $(TAG_$(FOR)) $(ARGS) --no-deps -r "$(BUNDLE)/requirements.txt"
endif
	$(GET) --no-deps "$$("$(PY)" -c 'from rmt_mini.engine.weights import REQUIREMENT; print(REQUIREMENT)')"
	"$(PY)" -m docs.make.slides --out "$(BUNDLE)/slides"
	cp -R notebooks "$(BUNDLE)"
	rm -rf "$(BUNDLE)/notebooks/solutions"
	cp docs/bundle.txt "$(BUNDLE)/README.txt"

handouts: $(STAMP) ## make a handout, a prediction sheet, an exam and its key in build/handouts
	"$(PY)" -m docs.make.handouts $(ARGS)

# Tests share two cores, one thread each, but for those that need a GPU, which run alone; tests that need what a machine
# lacks skip themselves. The four expressions must leave no test out.
FAST := not (slow or browser or gpu)
BROWSER := browser and not (slow or gpu)
SLOW := slow and not gpu
ALONE := gpu

test: $(STAMP) ## lint, types, doctests, tests, every notebook
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy rmt_mini
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n 2 -m "$(FAST)" --doctest-modules rmt_mini tests
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n 2 --dist loadfile -p tests.nbval_over_files --nbval-lax notebooks --ignore notebooks/exercises
	$(MAKE) browser
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n 2 --dist loadgroup -m "$(SLOW)" tests
	"$(PY)" -m pytest -q -m "$(ALONE)" tests

browser: $(STAMP) ## work the controls of every lesson in a real browser
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -q -n 2 -m "$(BROWSER)" tests

bench: $(STAMP) ## time a step against TRL, generate and the machine's limits (about 20 minutes)
	"$(VENV)/bin/rmt-mini" bench $(ARGS)

# All arms on the world abacus, and what post-training makes of them, as data/PROTOCOL.md says.
EXAM := --steps 120 --every 20

replicate: $(STAMP) ## make the main comparison again: all arms, three bases, post-training (a night on two cores)
	"$(VENV)/bin/rmt-mini" compare abacus --bases 3 --seeds 2 --control-seeds 1 --seed 5000 --out runs/replicate $(ARGS)
	"$(VENV)/bin/rmt-mini" exams runs/replicate --questions abacus-all --budget-start 17 $(EXAM)
	"$(VENV)/bin/rmt-mini" exams runs/replicate --questions abacus-text --budget-start 56 $(EXAM)

clean: ## remove caches and build products; .venv and runs/ stay
	rm -rf build docs/api dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './$(VENV)' -prune -o -type d -name __pycache__ -exec rm -rf {} +

# PyTorch goes in first and by itself, so that a machine's own CPU build of the pinned version is taken.
$(STAMP): pyproject.toml constraints.txt
	@"$(PY)" -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -m venv "$(VENV)"; }
	@echo "Installing into $(VENV); the first time takes minutes."
	"$(PY)" -m pip install --disable-pip-version-check -q -c constraints.txt torch
	"$(PY)" -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[$(EXTRAS)]'
	@touch "$@"
