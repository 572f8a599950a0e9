"""Numbers and tables as text."""

import math

import pytest

from skinlesion.text import aligned, counted, duration, interval, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.8363, "0.836"), (1, "1.000"), (12.34, "12.3"), (3456.7, "3,457"), (-0.5, "-0.500")),
        *((-1e-9, "0.000"), (None, "-"), (math.nan, "-")),
    ],
)
def test_a_share_has_three_decimals_and_larger_numbers_fewer(value, text):
    assert number(value) == text


def test_signs_percentages_intervals_counts_and_times():
    assert (number(0.0123, "+"), number(-0.2, "+"), number(0.00051, ".4f")) == (
        *("+0.012", "-0.200", "0.0005"),
    )
    assert (percent(0.4217), percent(0.4217, 1), percent(None)) == ("42 %", "42.2 %", "-")
    assert interval((0.814, 0.8591)) == "0.814-0.859"
    assert interval((-0.012, 0.0312), "+") == "[-0.012, +0.031]"
    assert (interval(None), interval((math.nan, math.nan))) == ("-", "-")
    assert (counted(1, "image"), counted(2000, "image")) == ("1 image", "2,000 images")
    assert (duration(59.6), duration(3725)) == ("0:01:00", "1:02:05")


def test_a_table_is_aligned():
    rows = [["name", "n"], None, ["a", "1"], ["bcd", "1,000"]]
    assert aligned(rows).splitlines() == [
        "name       n",
        "------------",
        "a          1",
        "bcd    1,000",
    ]
    assert aligned([["a", "b", "c"], ["dd", "ee", "ff"]], left=2, gap=1).splitlines() == [
        "a  b   c",
        "dd ee ff",
    ]
