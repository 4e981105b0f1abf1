"""Errors that speak to the user: what was wrong, what is allowed, what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user of the trainer can mend.

    Its message is one line that says what was wrong, what is allowed and what to do.
    ``python -m sam_jax.main`` prints it without a traceback and exits with code 2.
    """


def unknown(kind: str, name: object, valid: Iterable[str]) -> str:
    """Message for a name that is not known: the nearest one first, then all.

    Args:
        kind: what the name stands for, such as ``"method"``.
        name: what the user wrote.
        valid: the names that exist.

    Returns:
        One line.

    Example:
        >>> unknown("method", "vaso", ["sam", "vasso"])
        "unknown method 'vaso': did you mean 'vasso'? There are: sam, vasso"
    """
    valid = sorted(valid)
    nearest = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    hint = f" did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {name!r}:{hint} There are: {', '.join(valid) or 'none'}"
