"""Painting on a canvas: float [height, width, 3], RGB in 0 to 1. Points are complex numbers: column + 1j * row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GOLDEN_ANGLE = np.pi * (3 - 5**0.5)  # between neighbours in a spiral of seeds or petals


def spiral(count: int) -> tuple[Array, Array]:
    """Return points spread evenly over the unit disc, rim first, [count], and their distances from 0, [count, 1]."""
    reach = np.sqrt(np.linspace(1, 1 / count, count))
    return reach * np.exp(1j * GOLDEN_ANGLE * np.arange(count)), reach[:, None]


def blade(width: float, swell: float, taper: float, bend: float = 0.0) -> Array:
    """Return the outline of a petal or leaf from 0 to 1 and back: small swell and taper make blunt ends."""
    along = (1 - np.cos(np.linspace(0, np.pi, 11))) / 2
    half = along**swell * (1 - along) ** taper
    side = 1j * width * half / half.max()
    spine = along + 1j * bend * along**2
    return np.concatenate((spine + side, (spine - side)[-2::-1]))


def fill(canvas: Array, outline: Array, base: Array, tip: Array) -> None:
    """Paint a blade from its base to its tip, darker towards its sides and with faint veins."""
    rows, columns = _inside(canvas, outline)
    start, axis = outline[0], outline[len(outline) // 2] - outline[0]
    place = (columns + 1j * rows - start) / axis
    side = place.imag / np.abs(((outline - start) / axis).imag).max()
    light = 1 - 0.22 * side**2 + 0.035 * np.cos(11 * side)
    canvas[rows, columns] = (base + np.clip(place.real, 0, 1)[:, None] * (tip - base)) * light[:, None]


def glaze(canvas: Array, outline: Array, colour: Array | float, opacity: float) -> None:
    """Paint the inside of an outline, from transparent (opacity 0) to opaque (1)."""
    spot = _inside(canvas, outline)
    canvas[spot] += opacity * (colour - canvas[spot])


def shadow(canvas: Array, petal: Array) -> None:
    """Darken a narrow rim around a petal that is about to be painted."""
    glaze(canvas, petal + 0.045 * (petal - petal.mean()), 0, 0.25)


def strokes(canvas: Array, starts: Array, ends: Array, colours: Array, thickness: int, opacity: float = 1.0) -> None:
    """Paint straight lines, the later over the earlier; starts and ends are [n], colours [n, 3]."""
    steps = np.linspace(0, 1, int(np.abs(ends - starts).max()) + 2)
    brush = np.arange(thickness) - (thickness - 1) / 2
    brush = (brush[:, None] + 1j * brush).ravel()
    points = starts[:, None, None] + (ends - starts)[:, None, None] * steps[:, None] + brush
    rows, columns = np.rint(points.imag).astype(int), np.rint(points.real).astype(int)
    inside = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    spots = rows[inside], columns[inside]
    canvas[spots] += opacity * (colours[np.nonzero(inside)[0]] - canvas[spots])


def enlarge(picture: Array, height: int, width: int) -> Array:
    """Enlarge [rows, columns, channels] smoothly: a pixel is a Gaussian average of the old ones near it."""

    def weights(new: int, old: int) -> Array:
        bells = np.exp(-(((np.arange(new)[:, None] + 0.5) * old / new - np.arange(old) - 0.5) ** 2) / 0.8)
        return (bells / bells.sum(axis=1, keepdims=True)).astype(np.float32)

    wide = weights(width, picture.shape[1]) @ picture.astype(np.float32)
    return np.tensordot(weights(height, picture.shape[0]), wide, 1)


def _inside(canvas: Array, outline: Array) -> tuple[Array, Array]:
    """Return rows and columns of the pixels inside an outline: an odd number of its edges are to their left.

    Several times as fast as skimage.draw.polygon, which tests every pixel against every edge.
    """
    height, width = canvas.shape[:2]
    top, left = max(0, int(outline.imag.min())), max(0, int(outline.real.min()))
    bottom = max(top, min(height, int(outline.imag.max()) + 2))
    right = max(left, min(width, int(outline.real.max()) + 2))
    levels = np.arange(top, bottom)[:, None]
    below = outline.imag > levels
    rows, edges = np.nonzero(below != np.roll(below, -1, axis=1))
    starts, spans = outline[edges], (np.roll(outline, -1) - outline)[edges]
    columns = starts.real + (rows + top - starts.imag) * spans.real / spans.imag
    flips = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.add.at(flips, (rows, np.clip(np.ceil(columns).astype(int) - left, 0, right - left)), 1)
    rows, columns = np.nonzero(np.cumsum(flips[:, :-1], axis=1, dtype=np.uint8) & 1)
    return rows + top, columns + left
