"""Documents become texts: cut by tokens with nothing lost, and tokens unknown to the tokenizer are never asked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import Chat, Continuation, encode_text
from rmt_mini.engine.text import format_for, to_texts
from rmt_mini.errors import UserError
from rmt_mini.method.schedule import outside
from rmt_mini.records import Document, Span, Text, whole_of
from rmt_mini.scale.sampling import Positions
from rmt_mini.stages import coldstart as warmup
from rmt_mini.stages.evaluate import plan_positions
from rmt_mini.stages.midtrain import RMTTrainer, text_loss
from tests.engine.test_tokenizers import bare, sentencepiece, wordpiece
from tests.fakes import byte_tokenizer, make_tiny_policy
from tests.stages.tiny import small

BYTES = Continuation(byte_tokenizer())


# --- long and short documents ----------------------------------------------------------------------------------


def test_a_long_document_gives_parts_of_equal_length_and_first_parts_come_first() -> None:
    documents = [Document("long", "abcdefghij"), Document("short", "klm"), Document("cut", "nopqrstu", cut=True)]
    texts = to_texts(documents, BYTES, small(document_tokens=4, min_document_tokens=3), "training")
    assert [(text.id, bytes(text.ids).decode()) for text in texts] == [
        ("long (1 of 3)", "abc"),
        ("short", "klm"),
        ("cut", "nopq"),
        ("long (2 of 3)", "def"),
        ("long (3 of 3)", "ghij"),
    ]
    assert [whole_of(text.id) for text in texts] == ["long", "", "", "long", "long"]
    assert all(list(text.places) == [*range(1, len(text.ids))] for text in texts)


@given(text=st.text(st.sampled_from("aé漢 \n"), min_size=1, max_size=60), most=st.integers(2, 20))
def test_nothing_of_a_document_is_lost_and_no_part_is_short(text: str, most: int) -> None:
    data = text.encode()
    config = small(document_tokens=most, min_document_tokens=1)
    if len(data) < 2:
        return
    texts = to_texts([Document("0", text)], BYTES, config, "training")
    kept = bytes(token for one in texts for token in one.ids)
    assert kept == data or (most, len(data) % 2) == (2, 1)  # a part of one token has nothing to ask
    assert all(len(one.ids) <= most for one in texts)
    assert len(texts) == 1 or min(len(one.ids) for one in texts) >= most // 2


def test_a_blank_before_a_word_does_not_have_the_sort_of_the_word() -> None:
    document = Document("d", "It is 5, red.", (Span(5, 7, "noise"), Span(8, 12, "saying")))
    (text,) = to_texts([document], BYTES, small(min_document_tokens=2), "all")
    assert [sort for sort in text.sorts if sort] == ["noise", "saying", "saying", "saying"]
    assert bytes(one for one, sort in zip(text.ids, text.sorts, strict=True) if sort) == b"5red"


def test_every_part_has_the_header_of_its_format() -> None:
    form = Chat(byte_tokenizer())
    header, first = form.trunk("")
    texts = to_texts([Document("0", "abcdef")], form, small(document_tokens=3, min_document_tokens=3), "training")
    assert [text.ids for text in texts] == [(*header, *b"abc"), (*header, *b"def")]
    assert [(text.first, list(text.places)) for text in texts] == [(first, [first, first + 1])] * 2


# --- tokens that a tokenizer does not know ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [wordpiece, sentencepiece, lambda: sentencepiece(None, None), lambda: sentencepiece("<unk>", "<unk>")],
)
def test_unknown_tokens_are_found_and_never_asked(make: Callable[[], Any]) -> None:
    tokenizer = make()
    text = "the little words that it knows and one is 漢 here"
    (made,) = to_texts([Document("0", text)], Continuation(tokenizer), small(document_tokens=80), "training")
    (index,) = made.unknown
    assert "漢" not in tokenizer.decode(list(made.ids))
    assert encode_text(tokenizer, "漢")[-1] == made.ids[index]
    assert [*made.places] == [place for place in range(1, len(made.ids)) if place != index]
    assert to_texts([Document("0", "the little words")], Continuation(tokenizer), small(), "training")[0].unknown == ()


@pytest.mark.parametrize("make", [byte_tokenizer, bare, ByT5Tokenizer])
def test_a_tokenizer_that_covers_all_characters_knows_every_token(make: Callable[[], Any]) -> None:
    tokenizer = make()
    text = "".join(f"{special} 漢字 👩 \ufffd" for special in ["", *tokenizer.all_special_tokens])
    (made,) = to_texts([Document("0", text)], Continuation(tokenizer), small(document_tokens=4000), "training")
    assert made.unknown == ()
    assert {*made.ids}.isdisjoint(tokenizer.all_special_ids)  # spelled out they are plain text
    assert tokenizer.decode(list(made.ids)) == text


def test_their_share_is_said_and_a_large_one_refused(caplog: pytest.LogCaptureFixture) -> None:
    config, form = small(min_document_tokens=2, document_tokens=100), Continuation(sentencepiece())
    kept = Document("0", " ".join(["a" * 8] * 10 + ["漢"]))  # 11 blanks, 80 letters, 1 unknown
    with caplog.at_level("INFO"):
        to_texts([kept], form, config, "training")
    assert caplog.messages[0].endswith("; unknown to the tokenizer and never asked: 1.09 %")  # 1 of 92
    with pytest.raises(UserError, match=r"50% of the training tokens are unknown .*'smollm2-135m' \(at most 10%"):
        to_texts([Document("0", "漢 " * 20 + "漢")], form, config, "training")
    wordy = Document("1", "漢")
    assert [text.id for text in to_texts([kept, wordy], form, config, "training")] == ["0"]


@pytest.fixture(scope="module")
def foreign() -> tuple[Policy, list[Text]]:
    """A policy, and texts in which three tokens are unknown."""
    tokenizer = sentencepiece()
    policy = make_tiny_policy(dtype=torch.float64, tokenizer=tokenizer, vocabulary=len(tokenizer))
    documents = [Document(str(n), " ".join(["abcdef", "ghijkl", "漢"] * 3)) for n in range(2)]
    texts = to_texts(documents, format_for(policy, small()), small(document_tokens=64), "training")
    assert all(len(text.unknown) == 3 for text in texts)
    return policy, texts


def test_no_stage_asks_an_unknown_token(foreign: tuple[Policy, list[Text]], monkeypatch: pytest.MonkeyPatch) -> None:
    policy, texts = foreign
    known = [(n, index) for n, text in enumerate(texts) for index in text.places]
    config = small(evaluation_positions=999, positions_per_document=20, warmup_positions=999, warmup_steps=1)
    assert [(p.trunk, p.index) for p in plan_positions(policy, texts, config)] == known
    asked = RMTTrainer(config, policy, texts).choose(0, texts, policy.tree.read([text.ids for text in texts])).positions
    assert len(asked) == 40
    assert {(p.trunk, p.index) for p in asked} <= {*known}
    warmed: list[Any] = []

    def stop(policy: Any, form: Any, trunks: Any, positions: Any, *rest: Any) -> Any:
        warmed.extend((p.trunk, p.index) for p in positions)
        raise KeyboardInterrupt

    monkeypatch.setattr(warmup, "roll_out", stop)
    monkeypatch.setattr(warmup, "endless", lambda texts, seed: iter(texts))
    with pytest.raises(KeyboardInterrupt):
        warmup.cold_start(policy, format_for(policy, config), texts, config)
    assert warmed == known


def test_no_loss_trains_on_an_unknown_token(foreign: tuple[Policy, list[Text]]) -> None:
    policy, texts = foreign
    trunks = policy.tree.read([text.ids for text in texts])
    terms = []
    for text in texts:
        logits = policy.model(input_ids=torch.tensor([text.ids])).logits[0].detach()
        terms += [F.cross_entropy(logits[i - 1], torch.tensor(text.ids[i])) for i in text.places]
    wanted = float(torch.stack(terms).mean())
    loss, count = text_loss(policy, trunks, outside(texts, []))  # of mid-training and of the cold start
    assert (loss.item(), count) == (pytest.approx(wanted, rel=1e-6), len(terms))


def test_thresholds_come_from_tokens_that_may_be_asked() -> None:
    """Quantiles 0.3 and 0.7 of entropies 1 and 2; unknown tokens with an entropy of 99 play no part."""
    texts = [Text("a", tuple(range(12)), 1, unknown=(3, 4, 5, 6, 7, 8))]
    measured = torch.tensor([0.0, 1, 1, 99, 99, 99, 99, 99, 99, 1, 2, 2])
    config = small(documents_per_step=1, positions_per_document=5)
    positions = Positions(config, texts)
    plan = positions.draw(lambda read: [measured])
    assert positions.thresholds == pytest.approx((1.0, 1.8))
    assert [question.position.index for question in plan.questions] == [1, 2, 9, 10, 11]
    assert not plan.masks[0].any()
