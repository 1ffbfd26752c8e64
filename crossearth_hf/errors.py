"""The one error that a user's input can cause, and helpers for foreign text in its sentence.

The command line turns an `InputError` into one line and exit code 2.
"""

import re
import reprlib

LONGEST_SENTENCE = 2000
"""Characters of a printed sentence; our choice: lists of all data sets fit."""

LONGEST_FOREIGN_TEXT = 200
"""Characters of another library's message, or of a stranger's value, within a sentence; our choice."""

_READ_OF_A_MESSAGE = 10_000  # characters: some messages quote a whole file
_SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")
_ADVICE = re.compile(
    r"weights_only|trust_remote_code|pickle|torch\.serialization|safe_globals|\w://", re.I
)


class InputError(ValueError):
    """Something that a person typed or supplied is wrong; the message gives the value, the rule and the remedy."""


def on_one_line(text: str, limit: int = LONGEST_SENTENCE) -> str:
    """`text` cut to `limit` characters, without control characters, which names in files may hold."""
    escaped = (
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text[:limit]
    )
    plain = "".join(escaped)
    if max(len(text), len(plain)) <= limit:
        return plain
    return plain[: limit - 3] + "..."


def reason_of(error: BaseException) -> str:
    """The message of another library's error as one short line.

    Its advice is left out, such as to load pickles, to trust a stranger's code or to open an address.
    """
    said = " ".join(str(error)[:_READ_OF_A_MESSAGE].split())
    kept = [part for part in _SENTENCE_END.split(said) if not _ADVICE.search(part)]
    return on_one_line(" ".join(kept), LONGEST_FOREIGN_TEXT).rstrip(".:; ") or type(error).__name__


def shown(value: object) -> str:
    """A value from a stranger as Python writes it, shortened, for sentences about a file's content."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = (
    3,
    LONGEST_FOREIGN_TEXT,
    LONGEST_FOREIGN_TEXT,
    40,
)
