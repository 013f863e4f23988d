"""Switching layers off: by name, in tests alone."""

from __future__ import annotations

import pytest

from launcher.errors import BadInputError
from launcher.layers import VARIABLE, is_off, switched_off


def test_all_layers_hold_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert switched_off() == ()
    monkeypatch.setenv(VARIABLE, "")
    assert switched_off() == ()
    monkeypatch.setenv(VARIABLE, " watchdog, sentinel")
    assert switched_off() == ("sentinel", "watchdog")
    assert is_off("watchdog")
    assert not is_off("reaper")


def test_a_name_that_is_no_layer_is_an_error_and_not_a_layer_left_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sentinell")
    with pytest.raises(BadInputError, match=r"LAUNCHER_WITHOUT: is no layer .*Did you mean sentinel\?"):
        is_off("watchdog")
