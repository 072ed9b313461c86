"""JSON in one line, whichever characters a reader takes for the end of a line."""

from __future__ import annotations


def one_line(json: str) -> str:
    """Return JSON without the characters that some take for the end of a line, and JSON leaves as they are.

    U+0085, U+2028 and U+2029 are in strings if they are anywhere; there an escape is the same character. Readers
    that split text like Python's ``str.splitlines``, or evaluate it like old JavaScript, would break there.
    """
    if json.isascii():
        return json
    return json.replace("\u0085", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
