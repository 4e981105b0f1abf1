"""From what a library refuses to one sentence about a setting of the run."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from sam_jax import checks, errors


@contextlib.contextmanager
def in_settings(where: str, names: Mapping[str, str]) -> Iterator[None]:
    """Turns the refusal of an argument into that of the setting it came from.

    Only of a value that was checked: a programming error keeps its traceback.

    Example:
        >>> with in_settings("config.data", {"crop": "config.data.crop"}):
        ...     checks.integer("crop", -1, 0)
        Traceback (most recent call last):
        ...
        sam_jax.errors.UserError: config.data.crop must be an integer >= 0, got -1
    """
    try:
        yield
    except (checks.BadValue, errors.UserError) as error:
        arguments = "|".join(map(re.escape, names)) or "(?!)"
        message, found = re.subn(
            rf"(?<![\w.])({arguments})(?==| must be )",
            lambda match: names[match[1]],
            str(error),
        )
        raise errors.UserError(message if found else f"{where}: {message}") from error
