"""Tells people that something ended, through apprise: e-mail, Slack, desktop, and whatever else it speaks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from launcher.redact import redact


def notify(variables: Sequence[str], title: str, text: str, environ: Mapping[str, str]) -> list[str]:
    """Send to the apprise address that each environment variable holds; returns what went wrong, in words.

    An address holds a secret: it is never printed, logged or part of what is returned. Never raises for a
    service that cannot be reached: the work is done, whether or not it could be told.
    """
    wrong = unset(variables, environ)
    found = [name for name in variables if environ.get(name)]
    if not found:
        return wrong
    import apprise

    quiet = logging.getLogger("apprise")
    level, quiet.disabled = quiet.level, True  # its own words name the address
    try:
        for name in found:
            post = apprise.Apprise()
            if not post.add(environ[name]):
                wrong.append(f"{name} holds no address that apprise knows (such as mailto://… or slack://…)")
            elif not _sent(post, redact(title), redact(text)):
                wrong.append(f"the address in {name} could not be reached, or did not accept the message")
    finally:
        quiet.disabled = False
        quiet.setLevel(level)
    return wrong


def unset(variables: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Which of the variables hold nothing, in words."""
    return [f"{name} is not set: nobody is told through it" for name in variables if not environ.get(name)]


def _sent(post: object, title: str, text: str) -> bool:
    import apprise

    assert isinstance(post, apprise.Apprise)
    try:
        return bool(post.notify(title=title, body=text, body_format=apprise.NotifyFormat.TEXT))
    except Exception:  # noqa: BLE001  a plug-in of theirs; its words may name the address
        return False
