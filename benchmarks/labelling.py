"""A person who labels an archive from nothing: key presses against accuracy, and whether the accuracy shown is true.

The photos' folders are the true labels, which the simulated person knows. `--codes` names a folder of codes. One key
labels the shown photos of a group; taking a photo out of them is another press. Skipping a group is one press, and so
is the label of a single photo. A part of the photos, another one in each round, is never shown: these tell the true
accuracy. Labelled photos are typical ones, so the photos that are left without a label are harder than the archive.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import CODES_VARIABLE, Claim, mean_claim, parse_arguments, report
from labelled_archive import LabelledArchive

from flowers_batch.classifier.chosen import GROUP, RANDOM, RANDOM_EVERY, SUGGESTED
from flowers_batch.classifier.enough_labels import can_fit
from flowers_batch.classifier.labelled_codes import CodesOnDisk
from flowers_batch.classifier.labelling import LabelFit, fit_labels, predict_run
from flowers_batch.classifier.medoids import reduce_codes, select_medoids
from flowers_batch.search.groups import group_photos, typical_rows

ROUNDS = 10
TARGETS = {50: 0.79, 100: 0.83, 200: 0.86}  # accuracy, by key presses
HIDDEN = 0.3  # of the photos: they are never shown
MIN_PURITY = 0.6  # of the shown photos of a group; a person skips a more mixed one
SUGGESTIONS = 25  # photos, between two fits
MIN_UNCERTAINTY = 0.01  # as `suggest` has it
COVERAGE = 0.9  # share of the rounds in which the true accuracy is within the 95% interval; it is itself measured
PRECISION = 0.95  # of labels that are certain
STRATEGIES = ("groups", "suggestions", "random")

Screen = tuple[np.ndarray, str]  # rows, and how they were chosen


@dataclass(frozen=True)
class Reached:
    """What a person has reached after some key presses.

    Attributes:
        accuracy: On the hidden photos.
        of_others: On all photos without a label, hidden or not.
        labels: How many photos have one.
        random: How many of them were chosen at random.
        fit: What the page knows.
        of_all_labels: The accuracy that cross-validation shows if all labelled photos count as a random sample.
    """

    accuracy: float
    of_others: float
    labels: int
    random: int
    fit: LabelFit
    of_all_labels: float | None

    @property
    def is_within(self) -> bool:
        """Whether the accuracy on the hidden photos is within the interval that the page shows, if it shows one."""
        if self.fit.accuracy is None:
            return False
        low, high = self.fit.accuracy.interval95
        return low <= self.accuracy <= high


class Person:
    """A person who labels the photos that are shown, without errors.

    Args:
        archive: The photos and their true labels.
        points: float32 [rows, dimensions]: their codes, as clustering compares them.
        seed: Decides on the hidden photos, and on the random order of the others.
    """

    def __init__(self, archive: LabelledArchive, points: np.ndarray, seed: int):
        order = np.random.default_rng(seed).permutation(len(archive))
        self.hidden, self.order = np.split(order, [round(HIDDEN * len(order))])
        self._archive, self._points, self._seed = archive, points, seed
        self.chosen: dict[int, str] = {}  # of labelled photos, by position
        self.presses = 0

    def unlabelled(self, positions: np.ndarray) -> np.ndarray:
        """Return those of some photos that may be shown and have no label, in the same order."""
        return positions[~np.isin(positions, self.hidden) & ~np.isin(positions, [*self.chosen])]

    def answer(self, positions: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the key presses that shown photos take, and those that get a label."""
        labels = self._archive.labels[positions]
        name, count = Counter(labels.tolist()).most_common(1)[0]
        if count < MIN_PURITY * len(positions):
            return 1, positions[:0]
        return 1 + len(positions) - count, positions[labels == name]

    def fit(self, *, all_count: bool = False) -> LabelFit:
        """Return the classifier of the labels so far."""
        paths = self._archive.paths
        labels = {paths[each]: self._archive.labels[each].item() for each in self.chosen}
        chosen = {} if all_count else {paths[each]: way for each, way in self.chosen.items()}
        return fit_labels(self._archive.run, labels, chosen, min_precision=PRECISION, seed=self._seed)

    def suggested(self) -> np.ndarray:
        """Return the photos that are suggested next."""
        left = self.unlabelled(np.arange(len(self._archive)))
        weights = np.ones(len(left))
        if can_fit(Counter(self._archive.labels[[*self.chosen]].tolist())):
            margins = predict_run(self._archive.run, self.fit().head).margins[self._archive.rows[left]]
            uncertain = np.sort(np.argsort(margins, kind="stable")[: max(SUGGESTIONS, len(left) // 2)])
            left, weights = left[uncertain], np.maximum(1 - margins[uncertain], MIN_UNCERTAINTY)
        return left[select_medoids(self._points[left], weights, SUGGESTIONS)]

    def reached(self) -> Reached:
        """Return what has been reached so far."""
        archive, fit = self._archive, self.fit()
        numbers = predict_run(archive.run, fit.head).labels[archive.rows]
        correct = np.array(fit.head.classes)[numbers] == archive.labels
        others = archive.others(np.array([*self.chosen]))
        all_count = self.fit(all_count=True).accuracy
        return Reached(
            accuracy=float(correct[self.hidden].mean()),
            of_others=float(correct[others].mean()),
            labels=len(self.chosen),
            random=sum(way == RANDOM for way in self.chosen.values()),
            fit=fit,
            of_all_labels=all_count.value if all_count else None,
        )


def groups_first(person: Person, groups: list[np.ndarray]) -> Iterator[Screen]:
    """Yield the groups, then suggestions."""
    for group in groups:
        left = person.unlabelled(group)
        if len(left):
            yield typical_rows(left), GROUP
    yield from suggestions_only(person, groups)


def suggestions_only(person: Person, groups: list[np.ndarray]) -> Iterator[Screen]:
    """Yield suggested photos one by one."""
    while True:
        for position in person.suggested():
            yield np.array([position]), SUGGESTED


def with_random_photos(person: Person, screens: Iterator[Screen]) -> Iterator[Screen]:
    """Yield screens, of which every fifth is the next photo of the random order, as the page shows them."""
    order = iter(person.order)
    for number, screen in enumerate(screens, 1):
        yield screen
        if number % (RANDOM_EVERY - 1) == 0:
            yield np.array([next(order)]), RANDOM


def screens_of(strategy: str, person: Person, groups: list[np.ndarray]) -> Iterator[Screen]:
    """Return what a strategy shows to a person, in order."""
    if strategy == "random":
        return ((np.array([position]), RANDOM) for position in person.order)
    shown = {"groups": groups_first, "suggestions": suggestions_only}[strategy]
    return with_random_photos(person, shown(person, groups))


def label(
    archive: LabelledArchive, points: np.ndarray, groups: list[np.ndarray], strategy: str, seed: int
) -> dict[int, Reached]:
    """Return what a person has reached after each number of key presses in TARGETS, or just before."""
    person = Person(archive, points, seed)
    found: dict[int, Reached] = {}
    for positions, way in screens_of(strategy, person, groups):
        presses, labelled = person.answer(positions)
        for checkpoint in (each for each in TARGETS if each not in found and person.presses + presses > each):
            found[checkpoint] = person.reached()
        if len(found) == len(TARGETS):
            break
        person.presses += presses
        for position in labelled.tolist():
            person.chosen[position] = RANDOM if person.chosen.get(position) == RANDOM else way
    return found


def claims_on(found: dict[str, list[dict[int, Reached]]]) -> list[Claim]:
    """Return the claims on accuracy, and on the accuracy that is shown."""
    claims = []
    for presses, target in TARGETS.items():
        groups, random = ([each[presses].accuracy for each in found[name]] for name in ("groups", "random"))
        claims.append(mean_claim(f"accuracy after {presses} key presses, groups first", groups, target))
        gains = [one - other for one, other in zip(groups, random, strict=True)]
        claims.append(mean_claim(f"accuracy that {presses} key presses gain over random photos", gains, 0.0))
    told = [each for draws in found.values() for draw in draws for each in draw.values() if each.fit.accuracy]
    share = statistics.mean(each.is_within for each in told)
    return [
        *claims,
        Claim(f"share of {len(told)} accuracies told whose 95% interval has the true one", share, COVERAGE),
    ]


def rows_of(found: dict[str, list[dict[int, Reached]]]) -> list[dict[str, object]]:
    """Return the figures of each strategy after each number of key presses."""
    return [
        row_of(strategy, presses, [draw[presses] for draw in draws])
        for strategy, draws in found.items()
        for presses in TARGETS
    ]


def row_of(strategy: str, presses: int, reached: list[Reached]) -> dict[str, object]:
    """Return the figures of the rounds of a strategy after some key presses."""

    def mean(values: list[float]) -> str:
        return f"{statistics.mean(values):.3f}" if values else ""

    told = [each for each in reached if each.fit.accuracy]
    errors = [each.fit.accuracy.value - each.accuracy for each in told if each.fit.accuracy]
    of_all = [each.of_all_labels - each.accuracy for each in reached if each.of_all_labels is not None]
    return {
        "first": strategy,
        "key presses": presses,
        "labels": round(statistics.mean(each.labels for each in reached)),
        "accuracy": mean([each.accuracy for each in reached]),
        "of photos without a label": mean([each.of_others for each in reached]),
        "random photos": round(statistics.mean(each.random for each in reached)),
        "accuracy is told": f"{len(told)} of {len(reached)}",
        "true one within its interval": mean([float(each.is_within) for each in told]),
        "told, less the true one": mean(errors),
        "of all labels, less the true one": mean(of_all),
    }


def measure(archive: LabelledArchive, rounds: int) -> tuple[list[Claim], dict[str, object]]:
    """Return the claims and the figures of an archive."""
    number_of = {row: number for number, row in enumerate(archive.rows.tolist())}
    groups = [
        np.array([number_of[row] for row in group.tolist() if row in number_of], np.int64)
        for group in group_photos(archive.run).rows
    ]
    points = reduce_codes(CodesOnDisk(archive.run, archive.rows, 0), len(archive))
    found: dict[str, list[dict[int, Reached]]] = {}
    for strategy in STRATEGIES:
        found[strategy] = [label(archive, points, groups, strategy, seed) for seed in range(rounds)]
        print(f"{strategy}: {rounds} rounds", file=sys.stderr)
    return claims_on(found), {"photos": len(archive), "groups": len(groups), "key presses": rows_of(found)}


def main() -> None:
    """Measure everything and print it."""
    options = parse_arguments(
        __doc__,
        codes={"type": Path, "default": os.environ.get(CODES_VARIABLE), "help": f"(default: ${CODES_VARIABLE})"},
        rounds={"type": int, "default": ROUNDS, "help": "rounds of labelling (default: %(default)s)"},
    )
    if options.codes is None:
        report("labelling", [], {"not measured": f"it needs --codes or {CODES_VARIABLE}"})
        return
    with tempfile.TemporaryDirectory() as scratch:
        codes = shutil.copytree(options.codes, Path(scratch) / "codes")  # groups are kept beside the codes
        report("labelling", *measure(LabelledArchive(codes, Path(scratch)), options.rounds))


if __name__ == "__main__":
    main()
