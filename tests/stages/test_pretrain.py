"""Pre-training: asides are laid out as the engine lays them out, and the recipe makes what ships."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from rmt_mini.config import PretrainConfig
from rmt_mini.engine.model import load_policy, locate_model
from rmt_mini.engine.prompt import Continuation
from rmt_mini.engine.rollout import lay_out
from rmt_mini.errors import UserError
from rmt_mini.records import Position, Rollout
from rmt_mini.runs.pre_and_post import pretrain_run
from rmt_mini.runs.run import resume
from rmt_mini.stages.pretrain import IGNORED, WINDOW, Reader, _padded, new_policy, pretrain
from rmt_mini.worlds import micro
from tests.fakes import byte_tokenizer
from tests.samples import samples

DATA = Path(__file__).parents[2] / "data"
SIZES = {"steps": 3, "documents_per_step": 4, "hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def form():
    return Continuation(micro.make_tokenizer())


def test_an_aside_is_laid_out_as_the_engine_lays_a_branch_out(form):
    reader, found = Reader(form, seed=0), 0
    for page in itertools.islice(micro.stream(micro.MICRO.pretrain, 0), 40):
        tokens, _ = reader.read(page)
        trunk = form.tokenizer(page.document.text)["input_ids"]
        places = [i for i, token in enumerate(tokens) if form.tokenizer.decode([token]).startswith("<think")]
        skipped = 0  # tokens of earlier asides
        for place in places:
            index = place - 1 - skipped  # the line end before the tag belongs to the opening
            close = tokens.index(form.close[0], place)
            unstated = tokens[place] == form.opening(None)[1]
            tag_end = place + 1 if unstated else tokens.index(form.opening(7)[-1], place) + 1
            budget = None if unstated else int(form.tokenizer.decode(tokens[place + 1 : tag_end - 1]))
            thought = tuple(tokens[tag_end:close])
            rollout = Rollout(Position(0, index, 0, 0.0), budget, thought, True, (trunk[index],), ())
            branch = lay_out(form, trunk, rollout).tokens
            assert tokens[place - 1 : place + len(branch)] == [*branch, trunk[index]]
            skipped += len(branch)
            found += 1
        assert len(tokens) == len(trunk) + skipped + 1
    assert found > 40


def test_everything_but_openings_is_predicted(form):
    for page in itertools.islice(micro.stream(micro.MICRO.pretrain, 0), 40):
        tokens, targets = Reader(form, seed=0).read(page)
        ignored = form.tokenizer.decode([t for t, target in zip(tokens, targets, strict=True) if target == IGNORED])
        assert all(target in (token, IGNORED) for token, target in zip(tokens, targets, strict=True))
        assert ignored.replace("\n", "") == "".join(
            part[: part.index(">") + 1]
            for part in form.tokenizer.decode(tokens).split("\n")
            if part.startswith("<think")
        )
        assert tokens[-1] == targets[-1] == form.tokenizer.eos_token_id


def test_a_blank_that_is_a_token_of_its_own_is_grammar():
    letters = byte_tokenizer()
    reader, sorts = Reader(Continuation(letters), seed=0), Counter()
    for page in itertools.islice(micro.stream(micro.ABACUS.pretrain, 0), 40):
        for token, piece in reader._tokens(page):
            sorts[bool(letters.decode([token]).strip()), piece.sort, piece.working is None] += 1
    assert [key for key in sorts if not key[0]] == [(False, micro.GRAMMAR, True)]
    assert {sort for _, sort, _ in sorts} == {micro.GRAMMAR, micro.NOISE, micro.CALCULABLE, micro.STEP}


def test_batches_hold_every_page_once(form):
    reader = Reader(form, seed=5)
    batches = list(itertools.islice(reader.batches(2), WINDOW))
    read = [reader.read(page)[0] for page in itertools.islice(micro.stream(micro.MICRO.pretrain, 5), 2 * WINDOW)]
    assert sorted(tokens for batch in batches for tokens, _ in batch) == sorted(read)
    lengths = [len(tokens) for batch in batches for tokens, _ in batch]
    assert lengths != sorted(lengths)  # short pages do not come first in every window


def test_padding_changes_no_loss():
    with pytest.raises(UserError, match=r"hidden_size is 33; give an even multiple of heads \(2\)"):
        PretrainConfig(**SIZES | {"hidden_size": 33})
    policy = new_policy(PretrainConfig(**SIZES))
    batch = next(Reader(Continuation(policy.tokenizer), 0).batches(4))

    def total(part):
        tokens, targets = _padded(part, policy.tokenizer.pad_token_id)
        logits = policy.model(input_ids=tokens[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")

    with torch.no_grad():
        assert len({len(tokens) for tokens, _ in batch}) > 1
        torch.testing.assert_close(total(batch), sum(total([one]) for one in batch), rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a short run."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    return pretrain_run(PretrainConfig(**SIZES, out=str(out)), progress=False)


def test_it_writes_a_run_folder_that_loads(pretrained):
    path = pretrained
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    notes = json.loads((path / "run.json").read_text())
    assert notes["status"] == "done"
    assert notes["config"]["layers"] == 1
    policy = load_policy(str(path / "checkpoint"), "cpu", "float32")
    assert policy.parameters == notes["parameters"]
    with pytest.raises(UserError, match="run' is a pre-training run, which cannot be taken up again"):
        resume(path)
    with pytest.raises(UserError, match=r"has no config.json; give '.*run/checkpoint'"):
        load_policy(str(path), "cpu")


def test_it_goes_on_from_a_model(pretrained):
    first = str(pretrained / "checkpoint")
    config = PretrainConfig(model=first, world="abacus", steps=1, documents_per_step=2, rise=1)
    before, policy = load_policy(first).model.state_dict(), new_policy(config)
    assert policy.tokenizer.get_vocab() == micro.make_tokenizer(micro.MICRO).get_vocab()  # the model's, not the world's
    assert all(torch.equal(before[name], one) for name, one in policy.model.state_dict().items())
    pretrain(config, policy)
    assert not all(torch.equal(before[name], one) for name, one in policy.model.state_dict().items())


RECIPES = {"micro": PretrainConfig(), "abacus": PretrainConfig(world="abacus", steps=3000)}


@pytest.mark.parametrize("world", RECIPES)
def test_the_recipe_still_gives_the_recorded_losses(world):
    """The first steps of the very recipe that made the shipped model."""
    folder = DATA / world / "pretrain"
    notes = json.loads((folder / "run.json").read_text())
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[:4]]
    config = PretrainConfig(**{**notes["config"], "out": ""})
    assert config == RECIPES[world]
    seen = []

    def watch(line):
        seen.append(line)
        if len(seen) == len(recorded):
            raise StopIteration

    with pytest.raises(StopIteration):
        pretrain(config, new_policy(config), watch)
    for line, old in zip(seen, recorded, strict=True):
        assert line["tokens"] == old["tokens"]
        assert line["loss"] == pytest.approx(old["loss"], rel=1e-4)
        assert line["grad_norm"] == pytest.approx(old["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("world", RECIPES)
def test_the_shipped_samples_are_those_of_the_world(world):
    assert (DATA / world / "samples.txt").read_text() == samples(micro.WORLDS[world])


@pytest.mark.parametrize("name", ["micro", "abacus", "abacus-1", "abacus-2"])
def test_the_shipped_models_are_small_and_speak_their_worlds_tokens(name):
    policy = load_policy(name, "cpu", "float32")
    assert sum(file.stat().st_size for file in Path(locate_model(name)).iterdir()) <= 5_000_000
    assert policy.tokenizer.get_vocab() == micro.make_tokenizer(micro.WORLDS[name.split("-")[0]]).get_vocab()
    assert 800_000 < policy.parameters < 1_200_000
