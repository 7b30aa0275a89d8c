"""How numbers and foreign text are written: one place, so that every renderer says the same.

Three significant digits, the unit always beside the number, a dash for what was not measured. Zero is written as zero.
"""

from __future__ import annotations

import math
import unicodedata

DASH = "—"
_GIB = 2**30
_MIB = 2**20
_LINE_CONTROLS = "\n\t"


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits, never in exponent form; thousands are grouped and never cut."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits - 1}e}")  # first, so that 9.999 counts as 10.0 when decimals are chosen
    if rounded == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(rounded))), 0)
    return f"{value:,.{decimals}f}"


def seconds(value: float | None) -> str:
    """`153 ms`, `1.53 s`, `87.0 µs`."""
    if value is None:
        return DASH
    size = abs(value)
    if size == 0 or size >= 0.9995:
        return f"{significant(value)} s"
    if size >= 0.0009995:
        return f"{significant(value * 1e3)} ms"
    return f"{significant(value * 1e6)} µs"


def money(value: float | None, currency: str = "USD") -> str:
    """`$0.0000123`, `-$1.23`, `EUR 1.23`: as many decimals as three significant digits need."""
    if value is None:
        return DASH
    sign = currency_sign(currency)
    return f"-{sign}{significant(-value)}" if value < 0 else f"{sign}{significant(value)}"


def per_million(value: float | None) -> bool:
    """Whether a price of one request is all zeros to a reader, and is better said of a million requests."""
    return value is not None and 0 < value < 0.001


def currency_sign(currency: str) -> str:
    """What stands before an amount: `$`, or the code and a space."""
    return "$" if currency == "USD" else f"{currency} "


def gib(value: float | None) -> str:
    """Bytes as `1.23 GiB`; below a hundredth of a GiB as MiB."""
    if value is None:
        return DASH
    if value == 0:
        return "0 GiB"
    return f"{significant(value / _GIB)} GiB" if abs(value) >= _GIB / 100 else f"{significant(value / _MIB)} MiB"


def percent(value: float | None) -> str:
    """A share of 1 as `93.5 %`: one decimal, because a spot-check holds no more."""
    return DASH if value is None else f"{round(value * 100, 1) + 0.0:.1f} %"


def count(value: int | None) -> str:
    """`46,592`."""
    return DASH if value is None else f"{value:,}"


def quantity(value: float | None, unit: str) -> str:
    """A number in the form that its unit asks for (s, bytes, USD, share, 1/s, tokens/s, streams); any other unit is written behind it."""
    if value is None:
        return DASH
    match unit:
        case "s":
            return seconds(value)
        case "bytes":
            return gib(value)
        case "USD":
            return money(value)
        case "share":
            return percent(value)
        case "1/s":
            return f"{significant(value)} /s"
        case "tokens/s":
            return f"{significant(value)} tok/s"
        case "streams":
            return f"{value:,.0f} streams"
        case _:
            return f"{significant(value)} {unit}".rstrip()


def signed(text: str) -> str:
    """A difference: `+12.3 ms`; what is zero, negative or a dash stays as it is."""
    return text if text == DASH or text[0] == "-" or not any(digit in text for digit in "123456789") else f"+{text}"


def interval(low: float | None, high: float | None, unit: str) -> str:
    """`12.0 … 15.0 ms`, `980 ms … 1.02 s`, or nothing where there is no interval."""
    return "" if low is None or high is None else joined(quantity(low, unit), quantity(high, unit))


def joined(low: str, high: str) -> str:
    """Two written figures as a range; a unit that both share is written once."""
    number, space, unit = low.partition(" ")
    return f"{number} … {high}" if space and high.endswith(f" {unit}") else f"{low} … {high}"


def share_of(value: float | None) -> str:
    """A relative difference: `+12.3 %`."""
    return signed(percent(value))


def visible(text: str, limit: int | None = None) -> str:
    """Text from outside made safe to look at: control and direction characters are shown, not obeyed; cut aloud at `limit` characters."""
    cut = "" if limit is None or len(text) <= limit else f" … ({len(text) - limit:,} more characters)"
    return "".join(_visible_character(character) for character in text[:limit]) + cut


def one_line(text: str, limit: int | None = None) -> str:
    """`visible`, with line breaks as spaces: for table cells."""
    return visible(" ".join(text.split()), limit)


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in _LINE_CONTROLS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in {"Cc", "Cs"} or unicodedata.bidirectional(character) in _DIRECTION_OVERRIDES or code in {0x2028, 0x2029}:
        return f"[U+{code:04X}]"
    return character


_DIRECTION_OVERRIDES = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
