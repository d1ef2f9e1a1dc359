"""Charts are SVG whose names are text."""

from __future__ import annotations

import warnings

from flowers_batch.pages.charts import bars


def test_names_of_any_script_are_text_without_warnings():
    names = ["🌼", "ورد", "雛菊"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = bars(names, [1, 2, 3])
    assert all(name in chart for name in names)
