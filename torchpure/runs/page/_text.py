"""Text from strangers, made safe for HTML and for plotly: names of runs and columns may be hostile."""

import html
import math

MAX_TEXT = 200
_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}  # they reorder the text around them


def clean(value: object) -> str:
    r"""Shorten a text, and replace characters that are not shown or that reorder others.

    >>> clean("a\x07b")
    'a�b'
    """
    text = str(value)
    short = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."
    return "".join(
        character if (character.isprintable() or character == " ") and ord(character) not in _DIRECTIONS else "\ufffd"
        for character in short
    )


def escaped(value: object) -> str:
    """Clean a text, and escape it for HTML, in elements and in quoted attributes.

    >>> escaped("<b id='x'>")
    '&lt;b id=&#x27;x&#x27;&gt;'
    """
    return html.escape(clean(value))


def label(value: object) -> str:
    """Clean a text, and escape it for plotly, which shows some HTML tags in its labels.

    >>> label('<a href="x">&amp;')
    '&lt;a href="x"&gt;&amp;amp;'
    """
    return html.escape(clean(value), quote=False)


def number(value: object) -> str:
    """Format a number with four digits; other values are shown as they are.

    >>> number(0.000012345), number(12), number(None), number(float("nan"))
    ('1.234e-05', '12', '-', 'not finite')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "not finite"
    return str(value)


def json_number(value: float) -> float | None:
    """Round to nine digits for a chart; a number that is not finite is a gap."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
