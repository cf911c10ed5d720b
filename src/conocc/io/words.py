"""Numbers, counts and times, as people read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from errno import EINVAL


def count(number: int, thing: str) -> str:
    """Put a number and a noun together.

    >>> count(1, "image"), count(3, "image"), count(2, "class")
    ('1 image', '3 images', '2 classes')
    """
    plural = "es" if thing.endswith("s") else "s"
    return f"{number} {thing}" + ("" if number == 1 else plural)


def named(path: str, reason: str) -> str:
    """Put a path before the reason why it failed, unless that names it, in quotes.

    >>> named("a.png", "it is empty"), named("a.png", "Cannot read 'a.png'.")
    ('a.png: it is empty', "Cannot read 'a.png'.")
    >>> named("a", "it is damaged"), named("1.png", "'11.png' has no score")
    ('a: it is damaged', "1.png: '11.png' has no score")
    """
    return reason if f"'{path}'" in reason else f"{path}: {reason}"


def reason(error: Exception) -> str:
    """Say why a file cannot be read, without the words that Python has for itself.

    >>> reason(KeyError("format")), reason(PermissionError(13, "Permission denied"))
    ("it lacks 'format'", 'Permission denied')
    >>> reason(TypeError("'int' object is not iterable"))
    'it is damaged, or of another kind'
    """
    if isinstance(error, KeyError):
        return f"it lacks '{str(error.args[0]).partition(' is not a file')[0]}'"
    if isinstance(error, OSError) and error.strerror and error.errno != EINVAL:
        return error.strerror
    unsaid = isinstance(error, (TypeError, AttributeError, IndexError, UnicodeError, OSError))
    return "it is damaged, or of another kind" if unsaid or "<" in str(error) else str(error)


def parted(names: Iterable[str], known: Collection[str] = ()) -> list[str]:
    """Part names at commas, but for what is a name as it stands.

    >>> parted(["a,b", "c, d", "e"], known=["c, d"])
    ['a', 'b', 'c, d', 'e']
    """
    parts = ([name] if name in known else name.split(",") for name in names)
    return [part.strip() if len(some) > 1 else part for some in parts for part in some]


def percent(share: float) -> str:
    """Write a share as people read it.

    >>> percent(0.05), percent(1 / 30)
    ('5 %', '3.333 %')
    """
    return f"{100 * share:.4g} %"


def readable(value: float) -> str:
    """Give a number with about four digits, and without exponent from 0.001 to 10 million.

    >>> readable(11382.4), readable(0.98765), readable(0.00012345), readable(-31.0)
    ('11,382', '0.9877', '1.23e-04', '-31')
    """
    size = abs(value)
    if 1000 <= size < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value == 0 or 1e-3 <= size < 1000 else f"{value:.2e}"


def duration(seconds: float) -> str:
    """Say about how long it takes.

    >>> duration(0.4), duration(34), duration(230), duration(9000)
    ('1 second', '35 seconds', '4 minutes', '2.5 hours')
    """
    if seconds < 90:
        return count(max(1, round(seconds) if seconds < 10 else 5 * round(seconds / 5)), "second")
    return count(round(seconds / 60), "minute") if seconds < 5400 else f"{seconds / 3600:.1f} hours"
