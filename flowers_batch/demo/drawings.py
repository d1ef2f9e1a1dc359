"""Drawn flowers: a stand-in for a photo archive when no real photos can be downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from skimage.draw import disk
from skimage.filters import gaussian

_Array = NDArray[Any]
_Shape = tuple[float, float, float]  # of a petal: the first three arguments of _blade

CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)  # between neighbours in a spiral of seeds or petals
_CIRCLE = np.exp(2j * np.pi * np.arange(24) / 24)
_WHITE, _CREAM, _GREY = (0.96, 0.95, 0.93), (0.97, 0.91, 0.66), (0.87, 0.87, 0.86)
_YELLOW, _ORANGE, _RED = (0.98, 0.82, 0.12), (0.95, 0.54, 0.10), (0.78, 0.08, 0.12)
_PINK, _ROSE, _PURPLE = (0.95, 0.68, 0.77), (0.88, 0.30, 0.45), (0.55, 0.24, 0.60)
_GREEN, _BROWN = (0.29, 0.50, 0.18), (0.24, 0.13, 0.07)
_PALETTES = {
    "daisy": (_WHITE, _WHITE, _WHITE, _CREAM, _PINK),
    "dandelion": (_YELLOW, _YELLOW, _YELLOW, _GREY, _GREY),
    "roses": (_RED, _RED, _PINK, _ROSE, _WHITE, _YELLOW, _CREAM),
    "sunflowers": (_YELLOW, _YELLOW, _YELLOW, _ORANGE, _CREAM),
    "tulips": (_RED, _PINK, _ROSE, _YELLOW, _ORANGE, _PURPLE, _WHITE),
}
_BLOTCHES = (_WHITE, _PINK, _ROSE, _YELLOW, _ORANGE, _PURPLE, _GREEN, _GREEN, _GREEN)
_GROUNDS = (  # colours at the top and at the bottom
    ((0.34, 0.52, 0.22), (0.16, 0.32, 0.10)),  # grass
    ((0.60, 0.70, 0.42), (0.27, 0.44, 0.18)),  # meadow
    ((0.36, 0.58, 0.86), (0.76, 0.86, 0.94)),  # sky
    ((0.46, 0.36, 0.27), (0.30, 0.22, 0.15)),  # soil
    ((0.10, 0.12, 0.11), (0.15, 0.20, 0.14)),  # dark
    ((0.50, 0.44, 0.52), (0.24, 0.27, 0.27)),  # dusk
)


def draw_flower(kind: str, rng: Generator) -> NDArray[np.uint8]:
    """Draw a picture of one to three flowers: uint8 [height, width, 3], RGB.

    The kind is one of CLASSES; anything else raises ValueError. All that varies comes from rng: the sides
    (240 to 360 pixels, landscape or portrait), place, size, slant, colour, background, blur, light and noise.
    """
    if kind not in CLASSES:
        raise ValueError(f"kind is {kind!r}, but must be one of {', '.join(CLASSES)}")
    sides = int(rng.integers(240, 271)), int(rng.integers(300, 361))
    height, width = sides if rng.random() < 0.65 else sides[::-1]
    canvas = _background(rng, height, width)
    colour = _pick(rng, _PALETTES[kind])
    for pose in _poses(rng, height, width, upright=kind == "tulips"):
        _stem(canvas, pose, rng, long_leaves=kind == "tulips")
        _FLOWERS[kind](canvas, pose, rng, _vary(rng, colour))
    return _develop(canvas, rng)


def draw_photos(folder: str | os.PathLike[str], count: int, seed: int = 0) -> None:
    """Write count drawings as folder/<class>/<class>-0000.jpg and so on, spread evenly over CLASSES.

    A picture depends only on the seed, its class and its number, so a larger count adds pictures and leaves
    the others as they are. Missing folders are made and files of the same name replaced. Raises ValueError
    for a negative count or seed.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count is {count} and seed is {seed}, but neither may be negative")
    for number, kind in enumerate(CLASSES):
        place = Path(folder) / kind
        place.mkdir(parents=True, exist_ok=True)
        for index in range(count // len(CLASSES) + (number < count % len(CLASSES))):
            picture = draw_flower(kind, np.random.default_rng((seed, number, index)))
            Image.fromarray(picture).save(place / f"{kind}-{index:04d}.jpg", quality=90)


@dataclass(frozen=True)
class _Pose:
    """Where a flower of radius 1 around 0 lies in the picture."""

    centre: complex
    turn: complex  # its radius in pixels times the direction of its own x axis
    squash: float  # 1: seen face on; smaller: at a slant

    def __call__(self, points: _Array) -> _Array:
        return self.centre + (np.real(points) + 1j * self.squash * np.imag(points)) * self.turn

    def pixels(self, length: float) -> int:
        return max(1, round(abs(self.turn) * length))


def _poses(rng: Generator, height: int, width: int, upright: bool) -> Iterator[_Pose]:
    """One to three places side by side, the smallest flower (the farthest) first."""
    count = rng.choice((1, 2, 3), p=(0.65, 0.23, 0.12))
    columns = (rng.permutation(count) + rng.uniform(0.4, 0.6, count)) / count * width
    rows = rng.uniform(0.38, 0.52, count) * height
    radii = np.sort(rng.uniform(0.32, 0.46, count)) * min(height, 1.15 * width / count)
    for radius, column, row in zip(radii, columns, rows, strict=True):
        if upright:  # seen from the side, so a flower has an upper end
            turn, squash = 0.85 * radius * np.exp(1j * rng.normal(0, 0.2)), rng.uniform(0.9, 1.1)
        else:
            turn, squash = radius * np.exp(2j * np.pi * rng.random()), rng.uniform(0.72, 1)
        yield _Pose(column + 1j * row, turn, squash)


def _background(rng: Generator, height: int, width: int) -> _Array:
    """An unsharp ground, drawn at a quarter of the size and enlarged."""
    small = height // 4, width // 4
    top, bottom = (_vary(rng, colour) for colour in _pick(rng, _GROUNDS))
    canvas = top + np.linspace(0, 1, small[0])[:, None, None] * (bottom - top)
    canvas = canvas + _enlarge(rng.normal(0, 0.07, (6, 7, 1)) + rng.normal(0, 0.03, (6, 7, 3)), *small)
    if rng.random() < 0.5:  # blades of grass
        roots = rng.uniform(0, small[1], 150) + 1j * rng.uniform(0.5, 1.2, 150) * small[0]
        tips = roots + rng.normal(0, 5, 150) - 1j * rng.uniform(8, 24, 150)
        _strokes(canvas, roots, tips, _vary(rng, _GREEN) * rng.uniform(0.5, 1.4, (150, 1)), 1, 0.5)
    if rng.random() < 0.5:  # blotches of light and of flowers far away
        for _ in range(rng.integers(4, 16)):
            spot = disk(rng.uniform(0, small), rng.uniform(2, 8), shape=small)
            canvas[spot] += rng.uniform(0.15, 0.6) * (_pick(rng, _BLOTCHES) - canvas[spot])
    return _enlarge(canvas, height, width)


def _stem(canvas: _Array, pose: _Pose, rng: Generator, long_leaves: bool) -> None:
    """A stem down to below the lower edge, with a pair of leaves on most."""
    green = _vary(rng, _GREEN) * rng.uniform(0.7, 1.2)
    radius, length = abs(pose.turn), 1.6 * canvas.shape[0]
    down = 1j * np.exp(1j * rng.normal(0, 0.12))
    stem = _blade(0.08 * radius / length, 0.02, 0.02, rng.normal(0, 0.05))
    _fill(canvas, pose.centre + length * down * stem, green, green)
    for side in (-1, 1) if rng.random() < 0.8 else ():
        foot, lean, size, width = (2.6, 0.35, 2.4, 0.12) if long_leaves else (1.3, 1.1, 1.0, 0.26)
        foot = pose.centre + foot * rng.uniform(0.75, 1.1) * radius * down
        axis = -1j * np.exp(1j * side * lean * rng.uniform(0.6, 1.4)) * size * radius * rng.uniform(0.8, 1.1)
        shade = green * rng.uniform(0.8, 1.1)
        leaf = _blade(width, 0.7, 0.9, side * rng.uniform(0, 0.25))
        _fill(canvas, foot + axis * leaf, 0.7 * shade, 1.2 * shade)


def _daisy(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    for _ in range(rng.integers(1, 3)):
        shape = (rng.uniform(0.07, 0.1), 0.4, 0.25)
        _whorl(canvas, pose, rng, shape, int(rng.integers(15, 27)), 0.8 * colour, colour)
    _seeds(canvas, pose, rng, rng.uniform(0.2, 0.32), _vary(rng, _YELLOW), _vary(rng, _ORANGE))


def _sunflower(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    base, brown = 0.7 * colour + 0.3 * np.array(_ORANGE), _vary(rng, _BROWN)
    for _ in range(2):
        shape = (rng.uniform(0.1, 0.14), 0.6, 0.8)
        _whorl(canvas, pose, rng, shape, int(rng.integers(16, 24)), base, colour)
    _seeds(canvas, pose, rng, rng.uniform(0.34, 0.52), 1.8 * brown, 0.5 * brown)


def _dandelion(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    """A pompon of florets or, where the colour is grey, a clock of seeds."""
    if colour.min() > 0.6:
        _clock(canvas, pose, rng, colour)
        return
    _glaze(canvas, pose(0.85 * _CIRCLE), 0.75 * colour, 1)
    tips, reach = _spiral(800)
    tips = tips * rng.uniform(0.8, 1.02, 800) * np.exp(1j * rng.normal(0, 0.1, 800))
    tones = colour * (0.75 + 0.25 * reach) * rng.uniform(0.75, 1.12, (800, 1))
    _strokes(canvas, pose(0.72 * tips), pose(tips), tones, pose.pixels(0.025))


def _clock(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    _glaze(canvas, pose(0.9 * _CIRCLE), colour, 0.2)
    seeds, hairs = 110, 9
    places = 0.86 * _spiral(seeds)[0]
    _strokes(canvas, pose(np.zeros(seeds)), pose(places), np.tile(0.75 * colour, (seeds, 1)), 1, 0.5)
    places = np.repeat(places, hairs)
    tips = places + 0.17 * np.exp(2j * np.pi * rng.random(seeds * hairs))
    _strokes(canvas, pose(places), pose(tips), colour * rng.uniform(0.7, 1.12, (seeds * hairs, 1)), 1, 0.6)
    _seeds(canvas, pose, rng, 0.1, 2 * _vary(rng, _BROWN), _vary(rng, _BROWN))


def _rose(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    """Broad petals along a spiral, from the outermost to the bud."""
    petals = rng.integers(18, 26)
    angles = rng.uniform(0, 2 * np.pi) + np.arange(petals) * _GOLDEN_ANGLE + rng.normal(0, 0.15, petals)
    for reach, angle in zip(np.linspace(1, 0.14, petals), angles, strict=True):
        petal = pose(reach * np.exp(1j * angle) * (_blade(rng.uniform(0.5, 0.62), 0.45, 0.22) - 0.12))
        _shadow(canvas, petal)
        tone = rng.uniform(0.92, 1.06) * colour
        _fill(canvas, petal, (0.45 + 0.15 * reach) * tone, (0.85 + 0.15 * reach) * tone)


def _tulip(canvas: _Array, pose: _Pose, rng: Generator, colour: _Array) -> None:
    """A cup of petals: two behind, the two flanks, the one in front."""
    opening, front = rng.uniform(0.15, 0.7), rng.normal(0, 0.15)
    base = 0.4 * colour + 0.4 * _pick(rng, (colour, _YELLOW, _GREEN))
    petals = (-0.5, 0.26, 0.72), (0.5, 0.26, 0.72), (-1, 0.3, 0.9), (1, 0.3, 0.9), (front, 0.34, 1)
    for lean, width, light in petals:
        petal = _blade(width, 0.42, 0.7, -0.3 * lean) * np.exp(1j * lean * opening) * rng.uniform(1.75, 2)
        petal = pose(0.9j + 0.16 * lean - 1j * petal)
        _shadow(canvas, petal)
        _fill(canvas, petal, light * base, light * colour)


def _whorl(canvas: _Array, pose: _Pose, rng: Generator, shape: _Shape, count: int, base: _Array, tip: _Array) -> None:
    """A ring of petals around the middle."""
    angles = 2 * np.pi * (rng.random() + rng.permutation(count) / count) + rng.normal(0, 0.06, count)
    for angle, light in zip(angles, rng.uniform(0.85, 1.05, count), strict=True):
        petal = _blade(*shape, rng.normal(0, 0.06)) * rng.uniform(0.85, 1.03) * np.exp(1j * angle)
        _fill(canvas, pose(petal), light * base, light * tip)


def _seeds(canvas: _Array, pose: _Pose, rng: Generator, radius: float, rim: _Array, middle: _Array) -> None:
    """A disc of seeds, one colour at its rim and another in the middle."""
    _glaze(canvas, pose(radius * _CIRCLE), 0.7 * rim, 1)
    places, reach = _spiral(160)
    tones = (middle + reach * (rim - middle)) * rng.uniform(0.75, 1.2, (160, 1))
    _strokes(canvas, pose(radius * places), pose(radius * places), tones, pose.pixels(0.09 * radius))


def _spiral(count: int) -> tuple[_Array, _Array]:
    """Places evenly over the unit disc, rim first, [count], and their distances from 0, [count, 1]."""
    reach = np.sqrt(np.linspace(1, 1 / count, count))
    return reach * np.exp(1j * _GOLDEN_ANGLE * np.arange(count)), reach[:, None]


def _blade(width: float, swell: float, taper: float, bend: float = 0.0) -> _Array:
    """Outline of a petal or leaf from 0 to 1 and back: small swell and taper make blunt ends."""
    along = (1 - np.cos(np.linspace(0, np.pi, 11))) / 2
    half = along**swell * (1 - along) ** taper
    side = 1j * width * half / half.max()
    spine = along + 1j * bend * along**2
    return np.concatenate((spine + side, (spine - side)[-2::-1]))


def _fill(canvas: _Array, outline: _Array, base: _Array, tip: _Array) -> None:
    """Paint a blade from its base to its tip, darker towards its sides and with faint veins."""
    rows, columns = _inside(canvas, outline)
    start, axis = outline[0], outline[len(outline) // 2] - outline[0]
    place = (columns + 1j * rows - start) / axis
    side = place.imag / np.abs(((outline - start) / axis).imag).max()
    light = 1 - 0.22 * side**2 + 0.035 * np.cos(11 * side)
    canvas[rows, columns] = (base + np.clip(place.real, 0, 1)[:, None] * (tip - base)) * light[:, None]


def _glaze(canvas: _Array, outline: _Array, colour: _Array | float, opacity: float) -> None:
    spot = _inside(canvas, outline)
    canvas[spot] += opacity * (colour - canvas[spot])


def _shadow(canvas: _Array, petal: _Array) -> None:
    """Darken a narrow rim around a petal that is about to be painted."""
    _glaze(canvas, petal + 0.045 * (petal - petal.mean()), 0, 0.25)


def _inside(canvas: _Array, outline: _Array) -> tuple[_Array, _Array]:
    """Rows and columns of the pixels inside an outline: an odd number of its edges are to their left.

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


def _strokes(
    canvas: _Array, starts: _Array, ends: _Array, colours: _Array, thickness: int, opacity: float = 1.0
) -> None:
    """Paint straight lines, the later over the earlier; starts and ends are [n], colours [n, 3]."""
    steps = np.linspace(0, 1, int(np.abs(ends - starts).max()) + 2)
    brush = np.arange(thickness) - (thickness - 1) / 2
    brush = (brush[:, None] + 1j * brush).ravel()
    points = starts[:, None, None] + (ends - starts)[:, None, None] * steps[:, None] + brush
    rows, columns = np.rint(points.imag).astype(int), np.rint(points.real).astype(int)
    inside = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    spots = rows[inside], columns[inside]
    canvas[spots] += opacity * (colours[np.nonzero(inside)[0]] - canvas[spots])


def _enlarge(picture: _Array, height: int, width: int) -> _Array:
    """Enlarge [rows, columns, channels] smoothly: a pixel is a Gaussian average of the old ones near it."""

    def weights(new: int, old: int) -> _Array:
        bells = np.exp(-(((np.arange(new)[:, None] + 0.5) * old / new - np.arange(old) - 0.5) ** 2) / 0.8)
        return (bells / bells.sum(axis=1, keepdims=True)).astype(np.float32)

    wide = weights(width, picture.shape[1]) @ picture.astype(np.float32)
    return np.tensordot(weights(height, picture.shape[0]), wide, 1)


def _develop(canvas: _Array, rng: Generator) -> NDArray[np.uint8]:
    """Blur, which also smooths the edges, then contrast, light, tint and noise; uint8."""
    picture = gaussian(np.clip(canvas, 0, 1), rng.uniform(0.6, 1.2), channel_axis=2, truncate=2.5)
    tint = rng.normal(1, 0.04, 3) * rng.uniform(0.88, 1.2)
    noise = rng.uniform(0.005, 0.025) * rng.standard_normal((*picture.shape[:2], 1), np.float32)
    picture = picture * tint.astype(np.float32) + np.float32(rng.normal(0, 0.05)) + noise
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _pick(rng: Generator, options: Sequence[ArrayLike]) -> _Array:
    return np.array(options[int(rng.integers(len(options)))])


def _vary(rng: Generator, colour: ArrayLike) -> _Array:
    return np.clip(np.array(colour) * rng.normal(1, 0.05) + rng.normal(0, 0.03, 3), 0.02, 1)


_FLOWERS = dict(zip(CLASSES, (_daisy, _dandelion, _rose, _sunflower, _tulip), strict=True))
