"""How photos were chosen to be labelled."""

from __future__ import annotations

import pytest

from flowers_batch.classifier.chosen import (
    GROUP,
    MIN_RANDOM_PHOTOS,
    RANDOM,
    SUGGESTED,
    VIEW,
    are_random,
    combined,
    random_needed,
)


@pytest.mark.parametrize(
    ("before", "now", "counts_as"),
    [
        (None, GROUP, GROUP),
        (GROUP, SUGGESTED, SUGGESTED),
        (GROUP, RANDOM, RANDOM),
        (RANDOM, VIEW, RANDOM),
        ("", VIEW, ""),
        ("", RANDOM, RANDOM),
        (None, "", ""),
    ],
)
def test_photo_of_the_random_sample_stays_in_it(before, now, counts_as):
    assert combined(before, now) == counts_as


def test_only_random_and_unrecorded_choices_are_a_sample():
    assert are_random([RANDOM, "", GROUP, VIEW]).tolist() == [True, True, False, False]
    assert random_needed([RANDOM, GROUP, ""]) == MIN_RANDOM_PHOTOS - 2
    assert random_needed([RANDOM] * MIN_RANDOM_PHOTOS + [GROUP]) == 0
    assert random_needed(["", ""]) == 0, "as before there was a record"
