"""Synthetic photos of flowers: a stand-in when no real photos can be downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from skimage.draw import disk
from skimage.filters import gaussian

from flowers_batch.demo.painting import GOLDEN_ANGLE, Array, blade, enlarge, fill, glaze, shadow, spiral, strokes

_Shape = tuple[float, float, float]  # of a petal: width, swell and taper of `blade`

FLOWER_CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")

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

    Args:
        kind: One of CLASSES.
        rng: Decides the picture's sides (240 to 360 pixels, landscape or portrait), and the flowers' position, size,
            slant, colour, background, blur, light and noise.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in FLOWER_CLASSES:
        raise ValueError(f"kind is {kind!r}, but must be one of {', '.join(FLOWER_CLASSES)}")
    sides = int(rng.integers(240, 271)), int(rng.integers(300, 361))
    height, width = sides if rng.random() < 0.65 else sides[::-1]
    canvas = _background(rng, height, width)
    colour = _pick(rng, _PALETTES[kind])
    for pose in _poses(rng, height, width, upright=kind == "tulips"):
        _stem(canvas, pose, rng, long_leaves=kind == "tulips")
        _FLOWERS[kind](canvas, pose, rng, _vary(rng, colour))
    return _develop(canvas, rng)


def draw_photos(folder: str | os.PathLike[str], count: int, seed: int = 0) -> None:
    """Write pictures as `folder/CLASS/CLASS-0000.jpg` and so on, spread evenly over CLASSES.

    A picture depends only on the seed, its class and its number, so that a larger count adds pictures and leaves
    the others as they are. Missing folders are made, and files of the same name replaced.

    Args:
        folder: Contains a folder per class.
        count: Number of pictures of all classes together.
        seed: Seed of all pictures.

    Raises:
        ValueError: The count or the seed is negative.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count is {count} and seed is {seed}, but neither may be negative")
    for number, kind in enumerate(FLOWER_CLASSES):
        place = Path(folder) / kind
        place.mkdir(parents=True, exist_ok=True)
        for index in range(count // len(FLOWER_CLASSES) + (number < count % len(FLOWER_CLASSES))):
            picture = draw_flower(kind, np.random.default_rng((seed, number, index)))
            Image.fromarray(picture).save(place / f"{kind}-{index:04d}.jpg", quality=90)


@dataclass(frozen=True)
class _Pose:
    """Maps a flower of radius 1 around 0 into the picture."""

    centre: complex
    turn: complex  # its radius in pixels times the direction of its own x axis
    squash: float  # 1: seen face on; smaller: at a slant

    def __call__(self, points: Array) -> Array:
        return self.centre + (np.real(points) + 1j * self.squash * np.imag(points)) * self.turn

    def pixels(self, length: float) -> int:
        return max(1, round(abs(self.turn) * length))


def _poses(rng: Generator, height: int, width: int, upright: bool) -> Iterator[_Pose]:
    """Yield one to three poses side by side, the smallest flower (the farthest) first."""
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


def _background(rng: Generator, height: int, width: int) -> Array:
    """Return a blurred ground, painted at a quarter of the size and enlarged."""
    small = height // 4, width // 4
    top, bottom = (_vary(rng, colour) for colour in _pick(rng, _GROUNDS))
    canvas = top + np.linspace(0, 1, small[0])[:, None, None] * (bottom - top)
    canvas = canvas + enlarge(rng.normal(0, 0.07, (6, 7, 1)) + rng.normal(0, 0.03, (6, 7, 3)), *small)
    if rng.random() < 0.5:  # blades of grass
        roots = rng.uniform(0, small[1], 150) + 1j * rng.uniform(0.5, 1.2, 150) * small[0]
        tips = roots + rng.normal(0, 5, 150) - 1j * rng.uniform(8, 24, 150)
        strokes(canvas, roots, tips, _vary(rng, _GREEN) * rng.uniform(0.5, 1.4, (150, 1)), 1, 0.5)
    if rng.random() < 0.5:  # blotches of light and of flowers far away
        for _ in range(rng.integers(4, 16)):
            spot = disk(rng.uniform(0, small), rng.uniform(2, 8), shape=small)
            canvas[spot] += rng.uniform(0.15, 0.6) * (_pick(rng, _BLOTCHES) - canvas[spot])
    return enlarge(canvas, height, width)


def _stem(canvas: Array, pose: _Pose, rng: Generator, long_leaves: bool) -> None:
    """Paint a stem that ends below the lower edge, mostly with a pair of leaves."""
    green = _vary(rng, _GREEN) * rng.uniform(0.7, 1.2)
    radius, length = abs(pose.turn), 1.6 * canvas.shape[0]
    down = 1j * np.exp(1j * rng.normal(0, 0.12))
    stem = blade(0.08 * radius / length, 0.02, 0.02, rng.normal(0, 0.05))
    fill(canvas, pose.centre + length * down * stem, green, green)
    for side in (-1, 1) if rng.random() < 0.8 else ():
        foot, lean, size, width = (2.6, 0.35, 2.4, 0.12) if long_leaves else (1.3, 1.1, 1.0, 0.26)
        foot = pose.centre + foot * rng.uniform(0.75, 1.1) * radius * down
        axis = -1j * np.exp(1j * side * lean * rng.uniform(0.6, 1.4)) * size * radius * rng.uniform(0.8, 1.1)
        shade = green * rng.uniform(0.8, 1.1)
        leaf = blade(width, 0.7, 0.9, side * rng.uniform(0, 0.25))
        fill(canvas, foot + axis * leaf, 0.7 * shade, 1.2 * shade)


def _daisy(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    for _ in range(rng.integers(1, 3)):
        shape = (rng.uniform(0.07, 0.1), 0.4, 0.25)
        _whorl(canvas, pose, rng, shape, int(rng.integers(15, 27)), 0.8 * colour, colour)
    _seeds(canvas, pose, rng, rng.uniform(0.2, 0.32), _vary(rng, _YELLOW), _vary(rng, _ORANGE))


def _sunflower(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    base, brown = 0.7 * colour + 0.3 * np.array(_ORANGE), _vary(rng, _BROWN)
    for _ in range(2):
        shape = (rng.uniform(0.1, 0.14), 0.6, 0.8)
        _whorl(canvas, pose, rng, shape, int(rng.integers(16, 24)), base, colour)
    _seeds(canvas, pose, rng, rng.uniform(0.34, 0.52), 1.8 * brown, 0.5 * brown)


def _dandelion(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    """Paint a pompon of florets or, if the colour is grey, a clock of seeds."""
    if colour.min() > 0.6:
        _clock(canvas, pose, rng, colour)
        return
    glaze(canvas, pose(0.85 * _CIRCLE), 0.75 * colour, 1)
    tips, reach = spiral(800)
    tips = tips * rng.uniform(0.8, 1.02, 800) * np.exp(1j * rng.normal(0, 0.1, 800))
    tones = colour * (0.75 + 0.25 * reach) * rng.uniform(0.75, 1.12, (800, 1))
    strokes(canvas, pose(0.72 * tips), pose(tips), tones, pose.pixels(0.025))


def _clock(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    glaze(canvas, pose(0.9 * _CIRCLE), colour, 0.2)
    seeds, hairs = 110, 9
    places = 0.86 * spiral(seeds)[0]
    strokes(canvas, pose(np.zeros(seeds)), pose(places), np.tile(0.75 * colour, (seeds, 1)), 1, 0.5)
    places = np.repeat(places, hairs)
    tips = places + 0.17 * np.exp(2j * np.pi * rng.random(seeds * hairs))
    strokes(canvas, pose(places), pose(tips), colour * rng.uniform(0.7, 1.12, (seeds * hairs, 1)), 1, 0.6)
    _seeds(canvas, pose, rng, 0.1, 2 * _vary(rng, _BROWN), _vary(rng, _BROWN))


def _rose(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    """Paint broad petals along a spiral, from the outermost to the bud."""
    petals = rng.integers(18, 26)
    angles = rng.uniform(0, 2 * np.pi) + np.arange(petals) * GOLDEN_ANGLE + rng.normal(0, 0.15, petals)
    for reach, angle in zip(np.linspace(1, 0.14, petals), angles, strict=True):
        petal = pose(reach * np.exp(1j * angle) * (blade(rng.uniform(0.5, 0.62), 0.45, 0.22) - 0.12))
        shadow(canvas, petal)
        tone = rng.uniform(0.92, 1.06) * colour
        fill(canvas, petal, (0.45 + 0.15 * reach) * tone, (0.85 + 0.15 * reach) * tone)


def _tulip(canvas: Array, pose: _Pose, rng: Generator, colour: Array) -> None:
    """Paint a cup of petals: two behind, the two flanks, the one in front."""
    opening, front = rng.uniform(0.15, 0.7), rng.normal(0, 0.15)
    base = 0.4 * colour + 0.4 * _pick(rng, (colour, _YELLOW, _GREEN))
    petals = (-0.5, 0.26, 0.72), (0.5, 0.26, 0.72), (-1, 0.3, 0.9), (1, 0.3, 0.9), (front, 0.34, 1)
    for lean, width, light in petals:
        petal = blade(width, 0.42, 0.7, -0.3 * lean) * np.exp(1j * lean * opening) * rng.uniform(1.75, 2)
        petal = pose(0.9j + 0.16 * lean - 1j * petal)
        shadow(canvas, petal)
        fill(canvas, petal, light * base, light * colour)


def _whorl(canvas: Array, pose: _Pose, rng: Generator, shape: _Shape, count: int, base: Array, tip: Array) -> None:
    """Paint a ring of petals around the middle."""
    angles = 2 * np.pi * (rng.random() + rng.permutation(count) / count) + rng.normal(0, 0.06, count)
    for angle, light in zip(angles, rng.uniform(0.85, 1.05, count), strict=True):
        petal = blade(*shape, rng.normal(0, 0.06)) * rng.uniform(0.85, 1.03) * np.exp(1j * angle)
        fill(canvas, pose(petal), light * base, light * tip)


def _seeds(canvas: Array, pose: _Pose, rng: Generator, radius: float, rim: Array, middle: Array) -> None:
    """Paint a disc of seeds, one colour at its rim and another in the middle."""
    glaze(canvas, pose(radius * _CIRCLE), 0.7 * rim, 1)
    places, reach = spiral(160)
    tones = (middle + reach * (rim - middle)) * rng.uniform(0.75, 1.2, (160, 1))
    strokes(canvas, pose(radius * places), pose(radius * places), tones, pose.pixels(0.09 * radius))


def _develop(canvas: Array, rng: Generator) -> NDArray[np.uint8]:
    """Apply blur, which also smooths the edges, then contrast, light, tint and noise; return uint8."""
    picture = gaussian(np.clip(canvas, 0, 1), rng.uniform(0.6, 1.2), channel_axis=2, truncate=2.5)
    tint = rng.normal(1, 0.04, 3) * rng.uniform(0.88, 1.2)
    noise = rng.uniform(0.005, 0.025) * rng.standard_normal((*picture.shape[:2], 1), np.float32)
    picture = picture * tint.astype(np.float32) + np.float32(rng.normal(0, 0.05)) + noise
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _pick(rng: Generator, options: Sequence[ArrayLike]) -> Array:
    return np.array(options[int(rng.integers(len(options)))])


def _vary(rng: Generator, colour: ArrayLike) -> Array:
    return np.clip(np.array(colour) * rng.normal(1, 0.05) + rng.normal(0, 0.03, 3), 0.02, 1)


_FLOWERS = dict(zip(FLOWER_CLASSES, (_daisy, _dandelion, _rose, _sunflower, _tulip), strict=True))
