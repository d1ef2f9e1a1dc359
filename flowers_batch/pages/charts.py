"""Charts as SVG, in the colours of the page that they are on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Stand-ins that no other part of a chart has, and what the page's own colours are by name.
_INK, _ACCENT, _LINE = "#010203", "#040506", "#070809"
_COLOURS = {_INK: "currentColor", _ACCENT: "var(--accent)", _LINE: "var(--line)"}
_PAINT = re.compile(f"(fill|stroke): ({'|'.join(_COLOURS)})")
_NAMES = re.compile(r' id="(?![mp][0-9a-f]{10}")[^"]*"')  # of groups: nothing refers to them, and charts share them
_LONGEST = 22  # characters of a name
# What would not be seen, or would turn its neighbours around: control characters, and marks of direction and joining.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_STYLE: dict[Any, Any] = {
    # Names are only text: a dollar sign begins no formula. `none` keeps them as text in the SVG.
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
    "svg.hashsalt": "flowers-batch",  # the same chart, the same file
}


def visible(text: str) -> str:
    """A name in which all that would not be seen is spelt out."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def calibration(curve: Sequence[dict[str, Any]]) -> Markup:
    """How often labels are right, against how sure they are: points of `photos`, `probability` and `accuracy`."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linestyle=":", linewidth=1)
        most = max(point["photos"] for point in curve)
        sure, right = _columns(curve, "probability", "accuracy")
        axes.plot(sure, right, color=_ACCENT)
        areas = [30 + 170 * point["photos"] / most for point in curve]
        axes.scatter(sure, right, areas, color=_ACCENT)
        axes.set(xlabel="how sure it is", ylabel="how often it is right", xlim=(0, 1.02), ylim=(0, 1.02))
        _percent(axes, "both")
        axes.grid(linewidth=0.8)

    return _svg(draw, 4.6, 4)


def learning(points: Sequence[dict[str, Any]]) -> Markup:
    """Accuracy by the number of labels: points of `photos` and `accuracy`."""

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(points, "photos", "accuracy"), color=_ACCENT, marker="o", markersize=7)
        axes.set(xlabel="labelled photos trained on", ylabel="accuracy on held-out photos", ylim=(0, 1.02))
        axes.set_xlim(left=0)
        _percent(axes, "y")
        axes.grid(linewidth=0.8)

    return _svg(draw, 4.6, 4)


def epochs(points: Sequence[dict[str, Any]], name: str, best: int) -> Markup:
    """`loss` or `accuracy` by epoch, on the training and on the validation side; a line at the best epoch."""

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
    """A bar for each name, the first on top."""

    def draw(axes: Axes) -> None:
        rows = range(len(names))
        drawn = axes.barh(rows, counts, color=_ACCENT, height=0.7)
        axes.bar_label(drawn, [f"{count:,}" for count in counts], padding=4)
        shown = map(visible, names)
        axes.set_yticks(rows, [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in shown])
        axes.tick_params(length=0)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)

    return _svg(draw, 4.6, 0.5 + 0.34 * len(names))


def histogram(counts: Sequence[int], threshold: float | None) -> Markup:
    """Photos by how sure their labels are, in equal parts from 0 to 1; a line where labels begin to be known."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        width = 1 / len(counts)
        axes.bar([number * width for number in range(len(counts))], counts, 0.9 * width, color=_ACCENT, align="edge")
        if threshold is not None and threshold <= 1:
            axes.axvline(threshold, color=_INK, linestyle=":", linewidth=1.5)
        axes.set(xlabel="how sure a label is", ylabel="photos", xlim=(0, 1))
        _percent(axes, "x")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.8)

    return _svg(draw, 4.6, 3)


def _columns(points: Sequence[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[point[name] for point in points] for name in names]


def _percent(axes: Axes, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in (axes.xaxis, axes.yaxis) if which == "both" else (getattr(axes, f"{which}axis"),):
        axis.set_major_formatter(PercentFormatter(1, 0))


def _svg(draw: Callable[[Axes], None], width: float, height: float) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # matplotlib escapes the names itself.
    text = buffer.getvalue()[buffer.getvalue().index("<svg") :]
    return Markup(_NAMES.sub("", _PAINT.sub(lambda found: f"{found[1]}: {_COLOURS[found[2]]}", text)))
