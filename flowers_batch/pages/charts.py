"""Charts as SVG, in the colours of the page that contains them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from flowers_batch.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Placeholders that occur nowhere else in a chart, and the page's colours that replace them.
_INK, _ACCENT, _LINE = "#010203", "#040506", "#070809"
_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)", _LINE: "var(--line)"}
_PAINT = re.compile(f"(fill|stroke): ({'|'.join(_COLOURS)})")
_NAMES = re.compile(
    r' id="(?![mp][0-9a-f]{10}")[^"]*"'
)  # of groups: unused, and not unique on a page with several charts
_MAX_CHARACTERS = 22  # of a name
_STYLE: dict[Any, Any] = {
    # Names are plain text: a dollar sign starts no formula, and the SVG keeps them as text.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "lines.linewidth": 2,
    "svg.hashsalt": "flowers-batch",  # makes the file reproducible
}


def calibration(curve: Sequence[dict[str, Any]]) -> Markup:
    """Draw the reliability diagram: accuracy by confidence.

    Args:
        curve: A dict per bin, with `photos`, `probability` (mean confidence) and `accuracy`.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linestyle=":", linewidth=1)
        most = max(point["photos"] for point in curve)
        confidence, accuracy = _columns(curve, "probability", "accuracy")
        axes.plot(confidence, accuracy, color=_ACCENT)
        areas = [30 + 170 * point["photos"] / most for point in curve]
        axes.scatter(confidence, accuracy, areas, color=_ACCENT)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        _percent(axes, "both")
        axes.grid(linewidth=0.8)

    return _svg(draw, 4.6, 4)


def learning(points: Sequence[dict[str, Any]]) -> Markup:
    """Draw the learning curve: accuracy by number of labels.

    Args:
        points: A dict per training run, with `photos` and `accuracy`.
    """

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(points, "photos", "accuracy"), color=_ACCENT, marker="o", markersize=7)
        axes.set(xlabel="labelled photos in training", ylabel="accuracy on held-out photos", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        _percent(axes, "y")
        axes.grid(linewidth=0.8)

    return _svg(draw, 4.6, 4)


def epochs(points: Sequence[dict[str, Any]], name: str, best: int) -> Markup:
    """Draw a metric of fine-tuning by epoch, on the training and the validation photos, with a line at the best epoch.

    Args:
        points: A dict per epoch, the first before any training, with `epoch`, the metric, and `validation_` and it.
        name: `loss` or `accuracy`.
        best: The best epoch.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.axvline(best, color=_INK, linestyle=":", linewidth=1)
        axes.plot(*_columns(points, "epoch", f"validation_{name}"), color=_ACCENT, marker="o", label="validation")
        trained = _columns(points[1:], "epoch", name)
        axes.plot(*trained, color=_INK, linestyle="--", marker="o", markerfacecolor="none", label="training")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "accuracy":
            axes.set_ylim(0, 1.02)
            _percent(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        axes.grid(linewidth=0.8)

    return _svg(draw, 4.6, 3.6)


def bars(names: Sequence[str], counts: Sequence[int]) -> Markup:
    """Draw a bar per name, the first one on top."""

    def draw(axes: Axes) -> None:
        rows = range(len(names))
        drawn = axes.barh(rows, counts, color=_ACCENT, height=0.7)
        axes.bar_label(drawn, [f"{count:,}" for count in counts], padding=4)
        shown = map(visible, names)
        axes.set_yticks(
            rows, [name if len(name) <= _MAX_CHARACTERS else f"{name[: _MAX_CHARACTERS - 1]}…" for name in shown]
        )
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)

    return _svg(draw, 4.6, 0.5 + 0.34 * len(names))


def histogram(counts: Sequence[int], threshold: float | None) -> Markup:
    """Draw the number of photos by confidence.

    Args:
        counts: Of bins of equal width from 0 to 1.
        threshold: The confidence below which labels are unknown, drawn as a line; None for no line.
    """

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        width = 1 / len(counts)
        axes.bar([number * width for number in range(len(counts))], counts, 0.9 * width, color=_ACCENT, align="edge")
        if threshold is not None and threshold <= 1:
            axes.axvline(threshold, color=_INK, linestyle=":", linewidth=1.5)
        axes.set(xlabel="confidence", ylabel="photos", xlim=(0, 1))
        _percent(axes, "x")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.8)

    return _svg(draw, 4.6, 3)


def close_fonts() -> None:
    """Close the font files that matplotlib has kept open; drawing opens them again."""
    from matplotlib import font_manager

    with suppress(AttributeError):  # it is not public, and only this closes them
        font_manager._get_font.cache_clear()  # type: ignore[attr-defined]


def _columns(points: Sequence[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[point[name] for point in points] for name in names]


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (axes.xaxis, axes.yaxis) if which == "both" else (getattr(axes, f"{which}axis"),):
        axis.set_major_formatter(PercentFormatter(1, 0))


def _svg(draw: Callable[[Axes], None], width: float, height: float) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        # The SVG keeps names as text, so that its reader needs the glyphs, and matplotlib none.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # matplotlib has escaped the names.
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    return Markup(_NAMES.sub("", _PAINT.sub(lambda found: f"{found[1]}: {_COLOURS[found[2]]}", text)))
