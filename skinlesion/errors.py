"""The one exception that means: the input is wrong, and the message says how to mend it."""

import difflib
import errno
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
# What a disk may answer that is no fault of the program.
DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    errno.ENOENT,  # no folder for temporary files can be written to
}


class SkinlesionError(Exception):
    """Wrong input: the message says what was found, what was expected and what to do.

    The command line prints it as one clear message, without a traceback.
    """


def listing(items: Sequence[object], shown: int = 5) -> str:
    """Return the first few items and a count: ``a, b, c and 17 more``."""
    head = ", ".join(str(item) for item in items[:shown])
    return head if len(items) <= shown else f"{head} and {len(items) - shown} more"


def disk_problem(error: Exception) -> str | None:
    """Return what a disk refused, in one line; None for other errors."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{error.strerror}. Nothing that was finished is lost; mend it and try again."


def validated(kind: type[T], values: Any, where: str = "") -> T:
    """Return plain values as a pydantic model or dataclass.

    A SkinlesionError names all that is wrong, unknown names with the nearest; `where` stands before
    the names, such as `split`.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise SkinlesionError(problems(error, kind, where)) from None


def problems(error: Any, kind: type, where: str = "") -> str:
    """Return what a pydantic ValidationError of a model says, in one line."""
    found = [_problem(one, kind, where) for one in error.errors(include_url=False)]
    return "; ".join(dict.fromkeys(found))


def _problem(found: Any, kind: type, where: str) -> str:
    name = ".".join([*filter(None, [where]), *map(str, found["loc"])])
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = [".".join(filter(None, [where, path])) for path in _names(kind)]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        # A key that was typed at the top may well belong somewhere below.
        near += [path for path in known if path.endswith(f".{found['loc'][-1]}")]
        hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        return f"{name}: there is no such key.{hint}"
    if found["type"] in ("missing", "missing_argument"):
        return f"{name}: expected a value"
    problem = found["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    value = "" if isinstance(found["input"], dict | list) else f"={str(found['input'])[:200]}"
    return f"{name}{value}: {problem}" if name else problem


def _names(kind: Any, prefix: str = "") -> Iterator[str]:
    fields = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", {})
    for name, field in fields.items():
        name = field.alias or name
        yield prefix + name
        yield from _names(field.annotation, f"{prefix}{name}.")
