"""A tokenizer of another kind than was meant works as it should, or is refused in one clear line."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from rmt_mini.engine.prompt import Chat, Continuation, continuation_of, encode_text
from rmt_mini.engine.text import format_for, to_texts
from rmt_mini.errors import UserError
from rmt_mini.records import Document, Span
from rmt_mini.stages.coldstart import cold_start
from rmt_mini.stages.evaluate import evaluate
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.posttrain import Exam
from rmt_mini.worlds.questions import Question
from tests.engine.test_prompt import with_start
from tests.fakes import byte_tokenizer, make_tiny_policy
from tests.stages.tiny import small, texts_for


def fast(model: Any, **parts: Any) -> PreTrainedTokenizerFast:
    """Make a transformers tokenizer of a tokenizers model; parts of the pipeline by their names, else specials."""
    inner = Tokenizer(model)
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        if name in parts:
            setattr(inner, name, parts.pop(name))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **parts)


def bare() -> PreTrainedTokenizerFast:
    """Bytes and nothing else: no eos, bos, pad, unk or template."""
    table = byte_tokenizer(template=None).backend_tokenizer
    plain = {token: n for token, n in table.get_vocab(with_added_tokens=False).items() if n < 256}
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return fast(models.BPE(vocab=plain, merges=[]), pre_tokenizer=level, decoder=decoders.ByteLevel())


def lower() -> PreTrainedTokenizerFast:
    """Bytes that forget capitals."""
    made = bare()
    made.backend_tokenizer.normalizer = normalizers.Lowercase()
    return made


ASCII = [chr(code) for code in range(33, 127)]


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT's: white space is lost, and a part of a word is marked."""
    pieces = ["[UNK]", *ASCII, *(f"##{sign}" for sign in ASCII), "the", "##ing", "[SEP]"]
    model = models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]")
    split = pre_tokenizers.BertPreTokenizer()
    return fast(model, pre_tokenizer=split, decoder=decoders.WordPiece(), unk_token="[UNK]", sep_token="[SEP]")


def sentencepiece(unk: str | None = "<unk>", eos: str | None = "</s>") -> PreTrainedTokenizerFast:
    """As T5's and older Llamas': a blank is a sign before the word, and lost at the beginning of a text.

    It may declare none of its special tokens.
    """
    pieces = ["<unk>", "</s>", "▁", *ASCII, "▁the", "the", "\n"]
    scored = [(piece, -float(n > 1) * (10 if len(piece) == 1 else 5)) for n, piece in enumerate(pieces)]
    space = pre_tokenizers.Metaspace()
    model = models.Unigram(scored, unk_id=0)
    return fast(model, pre_tokenizer=space, decoder=decoders.Metaspace(), unk_token=unk, eos_token=eos)


@pytest.mark.parametrize("make", [bare, lower, wordpiece, sentencepiece, ByT5Tokenizer])
def test_a_tokenizer_without_much_serves_the_whole_of_rmt(make: Callable[[], Any]) -> None:
    tokenizer = make()
    policy = make_tiny_policy(tokenizer=tokenizer, vocabulary=max(tokenizer.get_vocab().values()) + 1)
    config = small(steps=2, warmup_steps=1, evaluation_positions=12)
    texts = texts_for(policy, config)
    cold_start(policy, format_for(policy, config), texts, config)
    assert len(RMTTrainer(config, policy, texts).fit()) == 2
    assert evaluate(policy, texts, config)["think"]["average"]["n"] > 0


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content }}{{ messages[0].content }}",
        "nothing of it",
        "{{ raise_exception('system\nrole only') }}",
    ],
)
def test_a_template_that_does_not_take_a_turn_as_it_is(template: str) -> None:
    with pytest.raises(UserError, match="needs a chat template that takes a user's turn as it is"):
        Chat(byte_tokenizer(template=template))


def test_a_tokenizer_that_cannot_write_the_closing_tag() -> None:
    """Its tag would be the unknown word, and every unknown word would close a thought."""
    model = models.WordLevel({word: n for n, word in enumerate(["[UNK]", "the", "cat", "a"])}, unk_token="[UNK]")
    words_only = fast(model, pre_tokenizer=pre_tokenizers.Whitespace(), unk_token="[UNK]")
    assert words_only("</think>")["input_ids"][0] == 0
    with pytest.raises(UserError, match=r"the tokenizer cannot write .*\[UNK\]"):
        Continuation(words_only)


@pytest.mark.parametrize("make", [wordpiece, sentencepiece])
def test_a_word_and_a_part_of_a_word_differ(make: Callable[[], Any]) -> None:
    """Decoded alone, " the" and "the" look alike with these; within a text they do not."""
    tokenizer = make()
    names = ("the", "##ing") if make is wordpiece else ("▁the", "the")
    whole, part = (tokenizer.convert_tokens_to_ids(name) for name in names)
    form = Continuation(tokenizer, prefix_match=True)
    trunk, _ = form.trunk("in the end")
    index = trunk.index(whole)
    assert continuation_of(tokenizer, trunk, index)[0].startswith(" the")
    assert form.judge([whole], trunk, index) == 1.0
    assert form.judge([part], trunk, index) == 0.0


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_what_is_written_in_the_middle_of_a_text_has_no_blank_before_it(scheme: str) -> None:
    """Else the closing decision would be a blank, and a thought would end with its first word."""
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    assert tokenizer.tokenize("</think>")[:2] == ["▁", "<"]
    form = Continuation(tokenizer)
    words = tokenizer.convert_ids_to_tokens
    assert words(form.close) == [*"</think>"]
    assert words(form.opening(24)) == [*"\n<think▁24>"]
    assert words(form.cue(form.trunk("x the end")[0], 3)) == [*"\n...", "▁", "x", "▁the"]
    assert words(form.trunk("the end")[0]) == ["▁the", *"▁end"]  # a text begins as it always did
    tokenizer.chat_template = "[{{ messages[0].content }}]"
    chat = Chat(tokenizer)
    assert words(chat.close) == [*"</think>"]
    assert (words(chat.opening(None))[:5], words(chat.opening(None))[-9:]) == ([*"\n\nThe"], [*"]<think>\n"])
    assert words(chat.cue([], 0)) == [*"\n\n"]


def test_a_tokenizer_whose_closing_tag_begins_with_a_blank_in_any_place() -> None:
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    assert tokenizer.tokenize("a</think>")[:4] == ["▁", "a", "▁", "<"]
    with pytest.raises(UserError, match="puts a blank of its own before '</think>'"):
        Continuation(tokenizer)


def test_an_unknown_word_is_never_a_right_text() -> None:
    tokenizer = wordpiece()
    form = Continuation(tokenizer, prefix_match=True)
    trunk, _ = form.trunk("the 漢字 the")
    unknown = tokenizer.unk_token_id
    assert unknown in trunk
    assert continuation_of(tokenizer, trunk, trunk.index(unknown)) == ("", [])
    assert form.judge([unknown], trunk, trunk.index(unknown)) == 0.0


@pytest.mark.parametrize("make", [byte_tokenizer, sentencepiece, wordpiece, ByT5Tokenizer])
def test_special_tokens_in_a_text_are_plain_text(make: Callable[[], Any]) -> None:
    """Each kind of tokenizer splits them in its own way, and one written in Python does too."""
    tokenizer = make()
    steering = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    for special in tokenizer.all_special_tokens:
        if special != tokenizer.unk_token:
            assert steering & {*tokenizer(f"the {special}", add_special_tokens=False)["input_ids"]}
            assert not steering & {*encode_text(tokenizer, f"the {special}the{special}")}


def test_a_tokenizer_that_begins_and_ends_every_text() -> None:
    """Its beginning is read once, before documents and questions, is never asked for, and its end is left out."""
    policy, config, begin = make_tiny_policy(tokenizer=with_start()), small(document_tokens=10), 257
    spans = (Span(0, 3, "number"), Span(3, 12, "word"))
    (text,) = to_texts([Document("0", "137 and more", spans, cut=True)], format_for(policy, config), config, "training")
    assert text.ids == (begin, *b"137 and mo")
    assert list(text.places) == list(range(2, 11))
    assert text.sorts == ("", *["number"] * 3, "", *["word"] * 6)  # the blank between them has no sort
    exam = Exam(policy, [Question("0", "1 + 2 =", " 3", float)], config)
    assert exam.texts[0].ids == (begin, *b"1 + 2 = 3")
    assert exam.texts[0].places == (8,)
