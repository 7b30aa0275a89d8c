"""How numbers are written, to the character, and that foreign text cannot act."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.report import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"), (0.0, "0 s"), (0.15334, "153 ms"), (1.5334, "1.53 s"), (0.0015334, "1.53 ms"), (0.000087, "87.0 µs"), (123.4, "123 s"),
        (1234.5, "1,234 s"), (-0.0123, "-12.3 ms"),
        (0.9994, "999 ms"), (0.9996, "1.00 s"), (9.996, "10.0 s"), (0.0009994, "999 µs"), (0.0009996, "1.00 ms"),
    ],
)  # fmt: skip
def test_seconds_change_unit_where_rounding_does(value: float | None, text: str) -> None:
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (0.0, "$0"), (0.0000116, "$0.0000116"), (1.234, "$1.23"), (1234.5, "$1,234"), (-0.5, "-$0.500")]
)  # fmt: skip
def test_dollars_never_lose_a_small_price(value: float | None, text: str) -> None:
    assert formats.money(value) == text


def test_another_currency_is_named() -> None:
    assert (formats.money(1.5, "EUR"), formats.money(-1.5, "EUR"), formats.money(None, "EUR")) == ("EUR 1.50", "-EUR 1.50", "—")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), (0, "0 GiB"), (2**30, "1.00 GiB"), (31_457_280, "0.0293 GiB"), (1_048_576, "1.00 MiB"), (80 * 2**30, "80.0 GiB")]
)
def test_bytes(value: int | None, text: str) -> None:
    assert formats.gib(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "—"), (0.5, "share", "50.0 %"), (12.34, "tokens/s", "12.3 tok/s"), (4.0, "1/s", "4.00 /s"), (2.5, "J", "2.50 J"),
        (46592.0, "tokens", "46,592 tokens"), (1.5, "", "1.50"), (0.002, "USD", "$0.00200"),
    ],
)  # fmt: skip
def test_quantity_takes_the_form_of_its_unit(value: float | None, unit: str, text: str) -> None:
    assert formats.quantity(value, unit) == text


def test_differences_carry_a_sign_and_zero_does_not() -> None:
    assert [formats.signed(formats.seconds(value)) for value in (0.0123, -0.0123, 0.0, None)] == ["+12.3 ms", "-12.3 ms", "0 s", "—"]
    assert [formats.share_of(value) for value in (0.123, -0.123, -0.0001, None)] == ["+12.3 %", "-12.3 %", "0.0 %", "—"]


def test_ranges_name_a_shared_unit_once() -> None:
    assert formats.interval(0.012, 0.015, "s") == "12.0 … 15.0 ms"
    assert formats.interval(0.98, 1.02, "s") == "980 ms … 1.02 s"
    assert formats.interval(1.0, 2.0, "USD") == "$1.00 … $2.00"
    assert formats.interval(None, 2.0, "s") == ""


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_three_significant_digits_say_the_number_to_half_a_percent(value: float) -> None:
    text = formats.significant(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.text())
def test_visible_text_holds_no_control_and_no_direction_character(text: str) -> None:
    forbidden = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"} - {"\n", "\t"}
    assert not forbidden & set(formats.visible(text))


def test_visible_text_shows_what_it_replaces() -> None:
    assert formats.visible("a\x00\x1b[31m\x7f\u202eb") == "a\u2400\u241b[31m\u2421[U+202E]b"
    assert formats.visible("x" * 12, 10) == "xxxxxxxxxx … (2 more characters)"
    assert formats.visible("x" * 10, 10) == "x" * 10
    assert formats.one_line(" a\n\tb  c ") == "a b c"
