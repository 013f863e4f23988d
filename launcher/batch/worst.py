"""One exit code for many runs: the worst that happened."""

from __future__ import annotations

from collections.abc import Iterable

from launcher.errors import ExitCode

#: Worst first. Money that may still flow comes before all; then work that was paid for and is lost; then what was
#: cut short by a person; then what never ran; then what ran and ended early, with a model, or with a good reason.
ORDER = (
    ExitCode.RELEASE_PENDING,
    ExitCode.RECIPE_FAILED,
    ExitCode.BAD_INPUT,
    ExitCode.INTERRUPTED,
    ExitCode.NOT_CONFIRMED,
    ExitCode.REFUSED,
    ExitCode.STOPPED_AT_LIMIT,
    ExitCode.GATE_SAID_NO,
    ExitCode.OK,
)


def worst(codes: Iterable[int]) -> ExitCode:
    """The worst of the codes; one that is none of ours counts as a failed recipe."""
    known = {int(code) for code in ExitCode}
    held = {ExitCode(code) if code in known else ExitCode.RECIPE_FAILED for code in codes}
    return next((code for code in ORDER if code in held), ExitCode.OK)
