"""The one exception that means: the input is wrong, and the message says how to mend it."""

from collections.abc import Sequence


class SkinlesionError(Exception):
    """Wrong input: the message says what was found, what was expected and what to do.

    The command line prints it as one clear message, without a traceback.
    """


def listing(items: Sequence[object], shown: int = 5) -> str:
    """Return the first few items and a count: ``a, b, c and 17 more``."""
    head = ", ".join(str(item) for item in items[:shown])
    return head if len(items) <= shown else f"{head} and {len(items) - shown} more"
