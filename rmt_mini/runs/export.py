"""Write a run's model as a folder for others: weights, tokenizer, and a card that says what it is and how it thinks.

``rmt-mini export RUN --out DIR`` uses no network. Only ``--push REPO`` does: it uploads the folder to the Hugging Face
Hub, into a repository that is private if it is new.
"""

import json
import os
import shutil
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rmt_mini import __version__
from rmt_mini.config import RMTConfig, data
from rmt_mini.engine.prompt import TAIL_TOKENS, answer_format
from rmt_mini.errors import UserError, refusing
from rmt_mini.files import Evaluation, Notes, Samples, require_free
from rmt_mini.method import thought_cap
from rmt_mini.method.schedule import budget_of
from rmt_mini.report import claims, markdown
from rmt_mini.runs.folder import whole
from rmt_mini.worlds.corpus import dataset_name

ORIGINS: dict[str, dict[str, Any]] = data("report/origins.yaml")
PRIVATE = ("preset", "model", "corpus", "entropy_model", "out", "seed", "report_to")  # said elsewhere, or a path here
EXAMPLE = "Two and two make four; four and four make"


def export(run: Path, out: Path, push: str | None = None) -> str:
    """Write the checkpoint of a finished mid-training run and its card into a free folder; ``push`` it to a repository.

    Returns where it is. A UserError: the run is not done, the folder is in use, or the Hub refuses (the folder stays).
    """
    notes = Notes.read(run)
    if notes.kind != "mid-training" or notes.status != "done":
        raise UserError(
            f"{str(run)!r} is a {notes.kind} run that is {notes.status}; give a mid-training run that is done"
        )
    require_free(out)
    text = card(run, out.name)
    with whole(out) as made:
        shutil.copytree(run / "checkpoint", made, dirs_exist_ok=True)
        (made / "README.md").write_text(text, encoding="utf-8")
    return str(out) if push is None else _push(out, push)


def card(run: Path, name: str) -> str:
    """Return the model card of a run, with the YAML header that the Hub reads; no path of this machine is in it."""
    from huggingface_hub import ModelCardData

    notes, evaluation = Notes.read(run), Evaluation.read(run)
    config = notes.settings
    tokenizer = AutoTokenizer.from_pretrained(run / "checkpoint", trust_remote_code=False)
    form = answer_format(config.answer_format, tokenizer, notes.parameters or 0, config.prefix_match)
    trained = tuple(budget_of(config, step) for step in (0, config.steps))
    budget = config.evaluation_budget or trained[1]
    origin = ORIGINS["models"].get(config.model.rpartition("-")[0] if config.model[-1:].isdigit() else config.model)
    local = origin is None and os.path.isabs(config.model)
    address = config.corpus.removeprefix("hf:") if config.corpus.startswith("hf:") else ""
    dataset = None if os.path.isabs(address) else dataset_name(address)
    hub = config.model if origin is None and not local else (origin or {}).get("hub")
    base = origin["shown"] if origin else "a model in a local folder" if local else config.model
    text = ORIGINS["corpora"].get(config.corpus, config.corpus if dataset else "a text of the author's own")
    header = ModelCardData(
        license=origin["licence"] if origin else "other",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=hub,
        datasets=[dataset] if dataset else None,
        tags=["reinforcement-mid-training", "reinforcement-learning", "rmt-mini", "arxiv:2509.24375"],
    )
    opening, rows = form.opening(budget if config.use_budget else None), claims.rows_of(evaluation)
    usual = RMTConfig()
    settings = {name: (value, getattr(usual, name)) for name, value in config if name not in PRIVATE}
    shown = Samples.find(run) if config.corpus in ("micro", "abacus") else None  # no other text is ours to print
    return markdown.render(
        "card.md.j2",
        header=header.to_yaml(),
        name=name,
        folder=json.dumps(name),
        notes=notes,
        config=config,
        base=base,
        text=text,
        trained=trained,
        rows=rows,
        findings=claims.findings(config, evaluation, None),
        form=form,
        cap=thought_cap(budget) if config.use_thinking else 0,
        start=form.trunk("")[0],
        opening=opening,
        opening_text=json.dumps(tokenizer.decode(opening)),
        close=form.close,
        cue=form.cue([], 0),
        tail=TAIL_TOKENS,
        example=json.dumps(shown.after[0].context if shown and shown.after else EXAMPLE),
        changed={name: pair for name, pair in settings.items() if pair[0] != pair[1]},
        generated=shown is not None,
        known=origin is not None,
        bibtex=bibtex(),
    )


def bibtex() -> str:
    """Return how paper and package are cited."""
    return markdown.render("bibtex.j2", version=__version__, description=metadata("rmt-mini")["Summary"]).strip()


def _push(folder: Path, repository: str) -> str:
    from huggingface_hub import HfApi

    with refusing(f"push to {repository!r} failed", f"the folder {str(folder)!r} is complete"):
        api = HfApi()
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=f"Upload by rmt-mini {__version__}")
    return str(url)
