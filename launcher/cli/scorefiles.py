"""What the scoring verbs share: a fault in a file of rows becomes the command line's own error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bad_input() -> Iterator[None]:
    """Turn a recipe-side ManifestError into a BadInputError with the same file, line and key."""
    from launcher.errors import BadInputError
    from recipes.manifest import ManifestError

    try:
        yield
    except ManifestError as error:
        raise BadInputError(
            error.problem, fix=error.fix, file=error.file, line=error.line, key=error.key, value=error.value
        ) from None
    except OSError as error:
        raise BadInputError(f"{error.strerror or error}.", file=error.filename) from None
