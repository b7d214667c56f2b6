"""The replication report quotes what was recorded, and its sentences have no other numbers."""

import pytest

from tests.quotes import PAGE, quoted, section


def test_quotations_are_those_of_the_recorded_reports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert quoted(page) == page


def test_a_quotation_follows_its_report() -> None:
    page = "A\n<!-- abacus/dry: claims -->\nold\n<!-- end -->\nB\n"
    made = quoted(page)
    assert made.startswith("A\n<!-- abacus/dry: claims -->\n\n- **RMT is more than training on the text")
    assert made.endswith("\n\n<!-- end -->\nB\n")
    assert "](../data/abacus/dry/figures/arms.png)" in section("abacus/dry", "Accuracy")
    with pytest.raises(KeyError):
        section("abacus/dry", "No such heading")
