"""A token as a question: the micro-world's model answers it, and typed answers are judged as the package judges."""

from __future__ import annotations

import pytest

from rmt_mini.engine.prompt import Continuation
from rmt_mini.method.rewards import match_reward
from rmt_mini.teaching.widgets.answers import (
    GROUP,
    answer_explorer,
    ask_model,
    judge_answer,
    micro_world,
    question_explorer,
    words,
)

TEXT = "A lift waits on floor 3 and rises first 5"


def test_words_put_a_text_together_again() -> None:
    _, form, texts = micro_world()
    assert isinstance(form, Continuation)
    for text in texts[:5]:
        assert "".join(words(form, form.trunk(text)[0])) == text


def test_the_model_answers_once_plainly_and_in_a_group() -> None:
    shown = ask_model(2, 20, 20, 0)
    asked, table = shown.parts
    _, form, texts = micro_world()
    ids, _ = form.trunk(texts[2])
    assert asked.alt.endswith(f"It is “{form.tokenizer.decode([ids[20]])}”.")
    assert f"thinking: {table._repr_html_().count('✓') - ('no thought: 1' in table.alt)} of {GROUP} right" in table.alt
    assert "no thought: " in table.alt
    assert ask_model(2, 20, 20, 0).alt == shown.alt  # the settings alone decide


def test_a_thought_is_cut_off_at_twice_the_budget() -> None:
    assert f"{GROUP} cut off" in ask_model(2, 20, 1, 0).alt  # two tokens hold no thought
    with pytest.raises(ValueError, match="budget"):
        ask_model(2, 20, 0)


def test_every_control_of_the_question_moves_what_is_shown() -> None:
    explorer = question_explorer()
    for name, value in (("budget", 2), ("document", 3), ("index", 5), ("seed", 4)):
        before = explorer.children[-1].value.partition(">")[2]  # behind the settings, which change in any case
        explorer.controls[name].value = value
        assert explorer.children[-1].value.partition(">")[2] != before, name
    assert explorer.alt == ask_model(document=3, index=5, budget=2, seed=4).alt
    explorer.controls["document"].value = 0
    explorer.controls["index"].value = 70
    assert "position 70 cannot be asked for" in explorer.alt
    assert 'role="alert"' in explorer.children[-1].value


@pytest.mark.parametrize(
    ("answer", "match", "prefix"),
    [
        (" 3", 1, 1),
        ("3", 0, 0),
        (" 3 and", 0, 1),  # two tokens: no match, but whole ones
        (" 3 an", 0, 0),
        ("", 0, 0),
        (" 4", 0, 0),
        (f"{TEXT[21:]} and on", 0, 0),
    ],
)
def test_a_typed_answer_is_judged_by_both_rules(answer: str, match: int, prefix: int) -> None:
    asked, verdict, table = judge_answer(TEXT, 5, answer).parts
    assert asked.alt == "Token 5 of “A lift waits on floor”, and then? It is “ 3”."
    assert verdict.alt.startswith(f"Match {match}: ")
    assert table.alt.startswith(f"Prefix match {prefix}: ")
    _, form, _ = micro_world()
    trunk, _ = form.trunk(TEXT)
    strict = Continuation(form.tokenizer, prefix_match=True)
    ids = form.tokenizer(answer, add_special_tokens=False)["input_ids"]
    assert match_reward(ids, trunk[5]) == match
    assert strict.judge(ids, trunk, 5) == prefix  # the package's own judge agrees


def test_inside_a_character_no_text_follows() -> None:
    one, two = (judge_answer("é 3", index, " 3") for index in (1, 2))
    assert (
        one.parts[2].alt == "Prefix match 0: the answer goes on where the text known here ends, behind 0 bytes; "
        "tokens end behind bytes none."
    )
    assert two.parts[2].alt.startswith("Prefix match 1: ")


def test_every_control_of_the_answer_moves_what_is_shown() -> None:
    explorer = answer_explorer()
    assert explorer.alt == judge_answer(**explorer.settings).alt
    for name, value in (("sentence", "A ring lies on floor 3"), ("index", 2), ("answer", " lies")):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == judge_answer(**explorer.settings).alt != before, name
    explorer.controls["index"].value = 30
    assert "position 30 cannot be asked for; in this text 1 to 5 can" in explorer.alt
    explorer.controls["sentence"].value = ""
    assert "type more" in explorer.alt
