"""Figures as people read them: percent, points, milliseconds, bytes, counts. Pure functions of numbers.

Accuracies are fractions 0..1 in records and percent in words; a difference of two accuracies is in points (percentage points).
A figure that does not exist (None, NaN) is an en dash.
"""

import math
from collections.abc import Sequence
from typing import Any

SPACE = "\u00a0"  # keeps a number and its unit on one line
MINUS = "\u2212"
NONE = "\u2013"


def code(label: str | None) -> str:
    """A call string between backticks, which pages and terminals set in their own way."""
    return f"`{str(label).replace('`', '’')}`"


def quoted(label: str) -> str:
    """A user's own label between quotation marks."""
    return f"“{str(label).replace('`', '’')}”"


def known(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def decimal(value: float | None, places: int) -> str:
    """A number with fixed places, a true minus sign, and no negative zero."""
    if not known(value):
        return NONE
    text = f"{value:,.{places}f}"
    if text.startswith("-"):
        return text[1:] if float(text[1:].replace(",", "")) == 0 else MINUS + text[1:]
    return text


def percent(fraction: float | None, places: int = 1) -> str:
    """0.8123 -> '81.2 %'."""
    return decimal(fraction * 100, places) + SPACE + "%" if known(fraction) else NONE


def points(fraction: float | None, places: int = 1) -> str:
    """A difference of fractions: 0.013 -> '1.3 points'."""
    if not known(fraction):
        return NONE
    text = decimal(fraction * 100, places)
    return f"{text}{SPACE}{'point' if text.lstrip(MINUS) == f'{1:.{places}f}' else 'points'}"


def signed_points(fraction: float | None, places: int = 1) -> str:
    """0.013 -> '+1.3 points'."""
    if not known(fraction):
        return NONE
    return ("+" if round(fraction * 100, places) > 0 else "") + points(fraction, places)


def significant(value: float | None, figures: int = 3) -> str:
    """Three figures without an exponent: 0.01234 -> '0.0123', 1234.5 -> '1,230' is never shown, but '1,234'."""
    if not known(value):
        return NONE
    if value == 0:
        return "0"
    places = max(0, figures - 1 - math.floor(math.log10(abs(value))))
    text = decimal(value, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def milliseconds(value: float | None) -> str:
    """0.41 -> '0.41 ms', 2340 -> '2.34 s'."""
    if not known(value):
        return NONE
    if abs(value) >= 1000:
        return seconds(value / 1000)
    return f"{significant(value, 2 if abs(value) < 10 else 3)}{SPACE}ms"


def seconds(value: float | None) -> str:
    """4.2 -> '4.2 s', 312 -> '5 min 12 s', 7300 -> '2 h 2 min'."""
    if not known(value):
        return NONE
    if value < 60:
        return f"{significant(value, 2 if value < 10 else 3)}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min" + (f" {rest}{SPACE}s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{SPACE}h" + (f" {minutes}{SPACE}min" if minutes else "")


def size(value: float | None) -> str:
    """Bytes in powers of 1000: 392000 -> '392 kB'."""
    if not known(value):
        return NONE
    if abs(value) < 999.5:
        return f"{count(value)}{SPACE}{'byte' if round(value) == 1 else 'bytes'}"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if abs(value) < 999.5 or unit == "TB":
            break
    return f"{significant(value, 3)}{SPACE}{unit}"


def count(value: float | None) -> str:
    """A whole number with thousands marked: 12345 -> '12,345'."""
    return decimal(value, 0)


def ratio(value: float | None) -> str:
    """3.14 -> '3.1 times', 250.3 -> '250 times'."""
    if not known(value):
        return NONE
    return f"{decimal(value, 1 if value < 10 else 0)} times"


def interval(low: float | None, high: float | None, scale: float = 100.0, places: int = 1) -> str:
    """'66.0 to 72.2'; '' where there is none (one seed)."""
    if not (known(low) and known(high)):
        return ""
    return f"{decimal(low * scale, places)} to {decimal(high * scale, places)}"


def seeds(number: int) -> str:
    """'one seed', '3 seeds'."""
    return "one seed" if number == 1 else f"{number} seeds"


def plural(number: int, one: str, many: str | None = None) -> str:
    """'1 change', '4 changes'."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listing(items: Sequence[str], most: int = 6) -> str:
    """'a, b and c', with 'and 4 more' past the limit."""
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
