"""A model or a tokenizer of another kind than was meant works as it should, or is refused in one clear line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    ByT5Tokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import Chat, Continuation, continuation_of, encode_text
from rmt_mini.engine.text import format_for, to_texts
from rmt_mini.method.rewards import prefix_match_reward
from rmt_mini.records import Document, Span
from rmt_mini.stages.coldstart import cold_start
from rmt_mini.stages.evaluate import evaluate
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.posttrain import Exam
from rmt_mini.worlds.questions import Question
from tests.fakes import byte_tokenizer, make_tiny_policy, tiny_model
from tests.outcomes import either
from tests.stages.tiny import small, texts_for

SIZES: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
GPT2 = {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": None, "eos_token_id": None}


def saved(folder: Path, model: Any, tokenizer: Any = None) -> str:
    model.save_pretrained(folder)
    (byte_tokenizer() if tokenizer is None else tokenizer).save_pretrained(folder)
    return str(folder)


def opened(name: str) -> tuple[Policy | None, str | None]:
    return either(lambda: load_policy(name, "cpu", "float32"))


# --- other architectures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: BertForMaskedLM(BertConfig(**SIZES)),
            "sees the token that it is to predict, as encoders like BERT do",
        ),
        (lambda: BertModel(BertConfig(**SIZES)), "misses|sees the token"),
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=259, d_model=32, d_ff=48, num_layers=2, num_heads=4)
            ),
            "cannot be opened",
        ),
        (
            lambda: ViTModel(
                ViTConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
            ),
            "cannot be opened",
        ),
    ],
    ids=["bert", "bare bert", "t5", "vit"],
)
def test_what_is_no_plain_causal_model_is_refused(make: Callable[[], Any], words: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)  # far from the all but uniform attention of untrained weights
    policy, message = opened(saved(tmp_path, model))
    assert policy is None
    assert message is not None
    assert any(part in message for part in words.split("|")), message


# --- damaged folders ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    saved(folder, tiny_model())
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    policy, message = opened(str(tmp_path))
    assert policy is None
    assert message is not None
    assert "model.layers.1.mlp.up_proj.weight that are not finite" in message


# --- tokenizers --------------------------------------------------------------------------------------------------


def test_a_tokenizer_of_more_tokens_than_the_model_knows(tmp_path: Path) -> None:
    policy, message = opened(saved(tmp_path, tiny_model(), byte_tokenizer(["many", "more", "words"])))
    assert policy is None
    assert message is not None
    assert "knows 259 tokens, but its tokenizer numbers them up to " in message


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


def sentencepiece() -> PreTrainedTokenizerFast:
    """As T5's and older Llamas': a blank is a sign before the word, and lost at the beginning of a text."""
    pieces = ["<unk>", "</s>", "▁", *ASCII, "▁the", "the", "\n"]
    scored = [(piece, -float(n > 1) * (10 if len(piece) == 1 else 5)) for n, piece in enumerate(pieces)]
    space = pre_tokenizers.Metaspace()
    model = models.Unigram(scored, unk_id=0)
    return fast(model, pre_tokenizer=space, decoder=decoders.Metaspace(), unk_token="<unk>", eos_token="</s>")


def words_only() -> PreTrainedTokenizerFast:
    known = {word: n for n, word in enumerate(["[UNK]", "the", "cat", "a"])}
    return fast(
        models.WordLevel(known, unk_token="[UNK]"), pre_tokenizer=pre_tokenizers.Whitespace(), unk_token="[UNK]"
    )


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
        "{{ messages[7].content }}",
    ],
)
def test_a_template_that_does_not_take_a_turn_as_it_is(template: str) -> None:
    _, message = either(lambda: Chat(byte_tokenizer(template=template)))
    assert message is not None
    assert "needs a chat template that takes a user's turn as it is" in message


def test_a_tokenizer_that_cannot_write_the_closing_tag() -> None:
    """Its tag would be the unknown word, and every unknown word would close a thought."""
    (close, *_) = words_only()("</think>")["input_ids"]
    assert close == 0
    _, message = either(lambda: Continuation(words_only()))
    assert message is not None
    assert "the tokenizer cannot write" in message
    assert "[UNK]" in message


@pytest.mark.parametrize("make", [wordpiece, sentencepiece])
def test_a_word_and_a_part_of_a_word_are_told_apart(make: Callable[[], Any]) -> None:
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


def test_a_decoder_that_tidies_up_leaves_only_true_boundaries() -> None:
    """ "is n '" becomes "isn't" with the next token: the two ends before it are no ends in the tidy text."""
    tokenizer, tidy = wordpiece(), decoders.Replace(" n ' t", "n't")
    tokenizer.backend_tokenizer.decoder = decoders.Sequence([decoders.WordPiece(cleanup=False), decoders.Fuse(), tidy])
    trunk = tokenizer.convert_tokens_to_ids(["a", "i", "##s", "n", "'", "t", "i", "##t"])
    text, boundaries = continuation_of(tokenizer, trunk, 1)
    assert text == " isn't it"
    right = [said for end in range(len(text) + 1) if prefix_match_reward(said := text[:end], text, boundaries)]
    assert right == [" i", " is", " isn't", " isn't i", " isn't it"]


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
    assert words(chat.opening(None))[:5] == [*"\n\nThe"]
    assert words(chat.opening(None))[-9:] == [*"]<think>\n"]
    assert words(chat.cue([], 0)) == [*"\n\n"]


def test_a_tokenizer_whose_closing_tag_begins_with_a_blank_in_any_place() -> None:
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    assert tokenizer.tokenize("a</think>")[:4] == ["▁", "a", "▁", "<"]
    _, message = either(lambda: Continuation(tokenizer))
    assert message is not None
    assert "puts a blank of its own before '</think>'" in message


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
    tokenizer = byte_tokenizer()
    begin, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A <|end|>", special_tokens=[("<|user|>", begin), ("<|end|>", end)]
    )
    policy, config = make_tiny_policy(tokenizer=tokenizer), small(document_tokens=10)
    spans = (Span(0, 3, "number"), Span(3, 12, "word"))
    (text,) = to_texts([Document("0", "137 and more", spans, cut=True)], format_for(policy, config), config, "training")
    assert text.ids == (begin, *b"137 and mo")
    assert list(text.places) == list(range(2, 11))
    assert text.sorts == ("", *["number"] * 3, *["word"] * 7)
    exam = Exam(policy, [Question("0", "1 + 2 =", " 3", float)], config)
    assert exam.texts[0].ids == (begin, *b"1 + 2 = 3")
    assert exam.texts[0].places == (8,)
