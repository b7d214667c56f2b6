"""The parts of a thought, as ``tests/thoughts.py`` reads them for the replication report."""

import pytest

from rmt_mini.worlds.micro import ABACUS, MICRO, Working, World, think
from tests.thoughts import parts_right

SUM, SWAP = Working(" 9", ((" 6", " 5"), (" 6", " 1"))), Working(" left", ((" near", " middle"), (" far", " right")))
ALL = {"calculates": 1.0, "steps": 1.0, "whole": True, "start": True, "moves": True}


@pytest.mark.parametrize("world", [MICRO, ABACUS], ids=["micro", "abacus"])
@pytest.mark.parametrize("truth", [SUM, SWAP], ids=["sum", "swap"])
def test_a_right_thought_is_right_in_every_part_and_style(world: World, truth: Working) -> None:
    for style in world.thoughts:
        assert parts_right(think(style, truth.steps[-1][1], truth, world), truth, world) == ALL
        assert parts_right(think(style, " red", None, world), truth, world) == {"calculates": 0.0}


@pytest.mark.parametrize(
    ("thought", "wrong"),
    [
        (" Briefly from 9. The first is 6 making 5. The second is 6 making 2.", {"steps": 0.5, "whole": False}),
        (" Briefly from 8. The first is 6 making 4. The second is 6 making 0.", {"start": False, "whole": False}),
        (" Quick 9 first 6 5 second 7 2", {"moves": False, "whole": False}),
        (" Quick 9 first 6 5", {"moves": False, "whole": False}),
        (" Quick 9 first near 5 second 6 1", {"moves": False, "steps": 0.5, "whole": False}),
        (" Quick left first 6 5 second 6 1", {"start": False, "steps": 0.5, "whole": False}),
    ],
)
def test_a_wrong_part_is_found(thought: str, wrong: dict[str, float]) -> None:
    assert parts_right(thought, SUM, ABACUS) == ALL | wrong
