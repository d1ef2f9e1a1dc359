"""Names as text that a person can see."""

from __future__ import annotations

from flowers_batch.text import joined_visibly, shortened, visible, visible_lines


def test_invisible_characters_are_spelt_out():
    assert visible("a\x1b[31m\x7f\x9b\u202eb\n") == "a\\u001b[31m\\u007f\\u009b\\u202eb\\u000a"
    assert visible("\u3164\udcff\ufff9\U000e0041") == "\\u3164\\udcff\\ufff9\\U000e0041"
    assert visible("Löwenzahn 蒲公英 \U0001f33c") == "Löwenzahn 蒲公英 \U0001f33c"


def test_lines_are_kept_where_they_are_meant():
    assert visible_lines("a\nb\r") == "a\nb\\u000d"
    assert joined_visibly(["a\nb", "c"]) == "a\\u000ab\nc"


def test_long_name_loses_its_middle():
    assert shortened("a" * 100 + "b" * 100) == "a" * 60 + "…" + "b" * 60
