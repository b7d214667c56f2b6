"""Marked text and figures of entropy: what they say is what was put in, and nothing that was put in is markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import matplotlib.text
import pytest

from rmt_mini.report.plots import (
    Marked,
    byte_match,
    entropy_and_loss,
    entropy_drift,
    entropy_histogram,
    entropy_of_sorts,
    heat_map,
    length_triangle,
    of_text,
    question,
    rollout_table,
    stacked,
)
from rmt_mini.report.plots.canvas import Figured

THRESHOLDS = (0.5, 1.9)
TOKENS, ENTROPIES = ["A", " lift", " waits", " 3"], [0.9, 0.0, 2.3]
EVIL = '<script>alert("x")</script>'


class Styles(HTMLParser):
    """Collects the tags of a piece of HTML with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def parsed(shown: Any) -> Styles:
    return Styles(shown._repr_html_())


def row(when: str, match: float, thought: str, closed: bool = True) -> dict[str, Any]:
    told = {"context": "stops at", "truth": " 9", "answer": " 9" if match else " 8"}
    return {"when": when, "match": match, "thought": thought, "closed": closed, **told}


EVERY = [
    heat_map(TOKENS, ENTROPIES),
    heat_map(TOKENS, ENTROPIES, THRESHOLDS),
    byte_match("étu", "étude", (2, 6)),
    question(TOKENS, 2),
    rollout_table([row("before", 0, "hm", False), row("after", 1, "so 9")]),
]


@pytest.mark.parametrize("shown", EVERY)
def test_marked_text_reads_on_a_dark_page_and_aloud(shown: Marked) -> None:
    (tag, root), *inner = parsed(shown).tags
    assert tag == "div"
    assert root["role"] in ("img", "group")
    assert root["aria-label"] == shown.alt
    coloured = [root, *(attributes for _, attributes in inner if "background" in str(attributes.get("style")))]
    assert len(coloured) > 2
    for attributes in coloured:
        style = str(attributes["style"])
        assert re.search(r"(^|; )color: #", style), style
        assert re.search(r"(^|; )background: #", style), style


def test_nothing_that_is_shown_is_markup() -> None:
    for shown in (
        heat_map([EVIL, EVIL], [1.0]),
        heat_map([EVIL, EVIL], [1.0], THRESHOLDS),
        byte_match(EVIL, EVIL, (len(EVIL),)),
        question([EVIL, EVIL], 1),
        rollout_table([{**row(EVIL, 1, EVIL), "context": EVIL, "truth": EVIL, "answer": EVIL}]),
    ):
        assert "<script" not in shown._repr_html_()
        assert "script" in parsed(shown).words.replace(" ", "")  # it is there to be read


def test_a_heat_map_tells_the_highest_entropies_and_raises_their_numbers() -> None:
    shown = heat_map(TOKENS, ENTROPIES)
    assert shown.alt == (
        "Entropy of 3 tokens from 0.00 to 2.30 nats, in the mean 1.07; highest: “3” 2.30, “lift” 0.90, “waits” 0.00."
    )
    raised = re.findall(r"<sup[^>]*>([^<]*)</sup>", shown.body)
    assert raised == ["0.9", "2.3"]  # 0.0 is not worth a number
    darker = [style["style"] for tag, style in parsed(shown).tags if tag == "span"]
    assert len(set(darker)) == 3
    assert parsed(shown).words.startswith("A lift0.9 waits 32.3")


def test_a_heat_map_by_tier_marks_each_tier_by_its_own_line() -> None:
    shown = heat_map(TOKENS, ENTROPIES, THRESHOLDS)
    assert shown.alt == ("Of 3 tokens 1 is easy (up to 0.50 nats), 1 medium and 1 hard (above 1.90 nats). Hard: “3”.")
    spans = [attributes for tag, attributes in parsed(shown).tags if tag == "span"][:3]
    assert [re.findall("decoration: ([a-z ]+);", str(one["style"]))[0] for one in spans] == [
        "underline dotted",
        "none",
        "underline double",
    ]
    assert [one["title"] for one in spans] == ["0.90 nats, medium", "0.00 nats, easy", "2.30 nats, hard"]
    assert heat_map(["A", "\n"], [2.0], THRESHOLDS).alt.endswith("Hard: white space.")
    many = heat_map(["a"] * 9, [2.0] * 8, THRESHOLDS)
    assert many.alt.count("“a”") == of_text.NAMED
    assert many.alt.endswith(", ....")


def test_a_heat_map_needs_one_entropy_for_each_token_but_the_first() -> None:
    for entropies in ([], [1.0], [1.0] * 4):
        with pytest.raises(ValueError, match="4 tokens need 3 entropies"):
            heat_map(TOKENS, entropies)
    with pytest.raises(ValueError, match="ascending"):
        heat_map(TOKENS, ENTROPIES, (2.0, 1.0))


@pytest.mark.parametrize(
    ("answer", "paid", "why"),
    [
        ("é", 1, "the 2 bytes agree, and they end with a token"),
        ("étude", 1, "the 6 bytes agree, and they end with a token"),
        ("ét", 0, "the 3 bytes agree, but they end inside a token"),
        ("e", 0, "byte 1 differs"),
        (" é", 0, "byte 1 differs"),
        ("ê", 0, "byte 2 differs"),  # é is C3 A9, ê is C3 AA
        ("études", 0, "goes on where the text known here ends, behind 6 bytes"),
        ("", 0, "the answer is empty"),
    ],
)
def test_byte_match_says_what_an_answer_earns_and_why(answer: str, paid: int, why: str) -> None:
    shown = byte_match(answer, "étude", (2, 6))
    assert shown.alt.startswith(f"Prefix match {paid}: ")
    assert why in shown.alt
    assert shown.alt.endswith("tokens end behind bytes 2, 6.")


def test_byte_match_draws_bytes_their_differences_and_the_ends_of_tokens() -> None:
    shown = byte_match("é u", "étude", (2, 6))
    text, answer = (re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in shown.body.split("</tr>")[:2])
    assert text == ["C3", "A9", "t", "u", "d", "e"]
    assert answer == ["C3", "A9", "· ≠", "u", "", ""]
    thick = [
        place for place, cell in enumerate(re.findall(r"<td[^>]*>", shown.body.split("</tr>")[0])) if "4px" in cell
    ]
    assert thick == [1, 5]
    assert byte_match("x" * 99, "y", (1,)).body.count("<td") == 2 * of_text.LONGEST
    with pytest.raises(ValueError, match="outside"):
        byte_match("a", "a", (2,))


def test_a_question_shows_what_stands_before_and_only_then_the_truth() -> None:
    shown = question(TOKENS, 2)
    assert shown.alt == "Token 2 of “A lift”, and then? It is “ waits”."
    assert parsed(shown).words.startswith("A lift?")
    for index in (0, 4, -1):
        with pytest.raises(ValueError, match="1 to 3 can"):
            question(TOKENS, index)


def test_a_rollout_table_counts_by_time_and_asks_a_position_once() -> None:
    rows = [
        row("before", 0, "one two three", closed=False),
        row("after", 1, "one"),
        {**row("before", 1, "one"), "context": "floor"},
        {**row("after", 1, ""), "context": "floor"},
    ]
    shown = rollout_table(rows)
    assert shown.alt == (
        "Thoughts and answers. before: 1 of 2 right, 2 words a thought, 1 cut off; "
        "after: 2 of 2 right, 0 words a thought, 0 cut off."
    )
    assert shown.body.count("colspan") == 2
    assert (shown.body.count("✓"), shown.body.count("✗"), shown.body.count("[cut off]")) == (3, 1, 1)
    assert shown.role == "group"  # a thought is to be read, not only looked at
    with pytest.raises(ValueError, match="no rollout"):
        rollout_table([])


def test_stacked_things_keep_their_words_and_order() -> None:
    shown = stacked(Marked("one", "First."), length_triangle(4))
    assert shown.alt == f"First. {length_triangle(4).alt}"
    assert shown._repr_html_().index("First.") < shown._repr_html_().index("<img")


# --- figures of entropy ----------------------------------------------------------------------------------------


def written(figured: Figured) -> str:
    return " | ".join(text.get_text() for text in figured.figure.findobj(matplotlib.text.Text))


def test_a_histogram_counts_what_the_thresholds_part() -> None:
    figured = entropy_histogram([0.0, 0.5, 0.51, 1.9, 2.6], THRESHOLDS)
    assert figured.alt == (
        "Of 5 positions 2 are easy (up to 0.50 nats), 2 medium and 1 hard (above 1.90 nats). The largest is 2.60."
    )
    for label in ("easy: 2", "medium: 2", "hard: 1", "threshold 1: 0.50", "threshold 2: 1.90"):
        assert label in written(figured)
    assert "hard: 0" in written(entropy_histogram([0.1, 0.2], (0.15, 9.0)))
    with pytest.raises(ValueError, match="ascending"):
        entropy_histogram([0.1], (2.0, 1.0))


def test_sorts_are_told_apart_by_their_quartiles_and_markers() -> None:
    figured = entropy_of_sorts([0.0, 1.0, 2.0, 3.0, 4.0, 7.0], ["grammar"] * 5 + ["noise"])
    assert figured.alt == (
        "Entropy in nats. grammar: 5 tokens, median 2.00, middle half 1.00 to 3.00; "
        "noise: 1 tokens, median 7.00, middle half 7.00 to 7.00."
    )
    five = entropy_of_sorts([1.0, 2.0, 3.0, 4.0, 5.0], list("abcde"))
    assert all(f"{name}: 1 tokens" in five.alt for name in "abcde")
    assert len({line.get_marker() for line in five.figure.axes[0].lines[0:12:3]}) == 4  # of the first four rows


def test_drift_counts_positions_that_change_their_tier() -> None:
    figured = entropy_drift([0.1, 1.0, 2.0, 2.5], [0.6, 0.2, 2.1, 0.3], THRESHOLDS)
    assert figured.alt == (
        "Entropy of 4 positions: mean 1.40 nats before and 0.80 after. 2 moved to an easier tier and 1 to a harder one."
    )
    for label in ("easy before: 1", "medium before: 1", "hard before: 2", "no change"):
        assert label in written(figured)


def test_entropy_and_loss_tell_both_ends_of_every_line() -> None:
    figured = entropy_and_loss([0, 4], {"saying": [1.5, 0.5]}, {"saying": [8.0, 0.25]})
    assert figured.alt == (
        "Means in nats over 4 steps: entropy on saying 1.50 at first and 0.50 at last; "
        "loss on saying 8.00 at first and 0.25 at last."
    )
    left, right = figured.figure.axes
    assert left.lines[0].get_ydata().tolist() == [1.5, 0.5]
    assert right.lines[0].get_ydata().tolist() == [8.0, 0.25]
