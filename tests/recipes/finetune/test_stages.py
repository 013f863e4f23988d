"""How far a language that is learned from nothing has come, told from what a model writes."""

from __future__ import annotations

import pytest

from recipes.finetune.stages import WORDS, stage_of

SAID = ["buenos días señor", "la casa es grande", "mañana por la mañana"]


@pytest.mark.parametrize(
    ("written", "wers", "stage"),
    [
        (["xq", "open the door turn", "kkkk"], [1.2], "random"),
        (["", "a", ""], [1.0, 1.0], "mute"),
        (["buen dia senor", "la cas grande", "manan po la man"], [1.0, 0.8], "basic"),
        (["buenos días señor", "la casa grande", "mañana por la mañana"], [1.0, 0.8, 0.3], "major"),
        (SAID, [1.0, 0.5, 0.2, 0.2, 0.199, 0.201], "converged"),
        (SAID, [1.0, 0.5, 0.2, 0.2, 0.2, 0.15], "major"),  # it still gains
        (SAID, [0.2, 0.2, 0.2], "major"),  # too few validations to tell
        (["", "", ""], [0.2, 0.2, 0.2, 1.0], "mute"),  # it fell silent again
    ],
)
def test_a_stage_is_told_from_texts_and_the_course_of_the_wer(
    written: list[str], wers: list[float], stage: str
) -> None:
    assert stage_of(SAID, written, wers) == stage
    assert WORDS[stage]  # type: ignore[index]


def test_a_wer_that_was_never_good_has_not_converged_however_still_it_stands() -> None:
    assert stage_of(SAID, ["buenos casa", "la gran", "por mañana la"], [0.9] * 8) == "basic"


def test_nothing_to_say_and_nothing_written_is_no_fault() -> None:
    assert stage_of([""], [""], [0.0]) == "major"
