"""What codes and predictions depend on, and its digest."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

import pytest
from helpers import fingerprint

from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint


def test_digest_changes_with_every_field():
    base = fingerprint(head="h", top_k=5)
    changed = [
        replace(base, **{name: (value + 1 if isinstance(value, int) else f"{value}x")})
        for name, value in asdict(base).items()
    ]
    digests = {base.digest, *(other.digest for other in changed)}
    assert len(digests) == len(asdict(base)) + 1
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_digest_of_equal_fingerprints_is_equal():
    assert fingerprint().digest == fingerprint().digest


def test_differences_name_only_what_differs():
    mine, theirs = (
        fingerprint(precision="float32", weights="a" * 64),
        fingerprint(precision="bfloat16", weights="b" * 64),
    )
    assert mine.differences(theirs) == "weights (aaaaaaaaaaaa, not bbbbbbbbbbbb), precision (float32, not bfloat16)"
    assert mine.differences(mine) == ""


def test_fingerprint_survives_json():
    one = fingerprint(head="h", top_k=5)
    assert Fingerprint.from_json(asdict(one)) == one


def test_fingerprint_without_a_decode_mode_is_exact():
    exact = fingerprint()
    assert exact.decode == "exact"
    assert "decode" not in exact.to_json()  # its digest is that of folders that earlier versions wrote
    assert Fingerprint.from_json(exact.to_json()) == exact


def test_fingerprints_of_different_decode_modes_differ():
    exact, fast = fingerprint(), fingerprint(decode="fast")
    assert exact.digest != fast.digest
    assert fast.differences(exact) == "decode (fast, not exact)"
    assert Fingerprint.from_json(fast.to_json()) == fast
    assert fast.encoding["decode"] == "fast"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *((value, "is not a JSON object: encode into a new folder") for value in (None, [], "x")),
        ({}, "lacks network, layer, weights, precision, code_dtype: restore the file, or encode into a new folder"),
        ({"network": "vgg16"}, "lacks layer, weights, precision, code_dtype: restore the file"),
        (
            asdict(fingerprint()) | {"extra": 1},
            "depends on extra, which this version .* install a newer version, or enc",
        ),
    ],
)
def test_fingerprint_of_another_version_is_refused(value, problem):
    with pytest.raises(InputError, match=f"^The fingerprint {problem}.*[.]$"):
        Fingerprint.from_json(value)


def test_digest_equals_that_of_version_0_1():
    digest = "7554dc096a8f8e5fd553af26a683e666b15e0624936c51033b6ff517f8e17be0"
    assert fingerprint(preprocessing=2, schema=1).digest == digest
    digest = "b1f6fcf4e44c986e9f7ac453516c0c76819c656baf929fa1bc800375d561f328"
    head = "13098e14d8d3e89630d01451421fc98c8e886af6345d6162816687805e45caa9"
    assert fingerprint(preprocessing=2, schema=1, head=head, top_k=3).digest == digest


@dataclass(frozen=True)
class Later(Fingerprint):
    """The fingerprint of a later version, with one more field."""

    dropout: float = 0.0


def test_new_field_enters_digest_only_when_not_at_its_default():
    values = asdict(fingerprint())
    assert Later(**values).digest == fingerprint().digest
    assert Later(**values).to_json() == fingerprint().to_json()
    assert Later(**values, dropout=0.5).digest != fingerprint().digest
    assert Later.from_json(Later(**values, dropout=0.5).to_json()) == Later(**values, dropout=0.5)
    with pytest.raises(InputError, match="depends on dropout"):
        Fingerprint.from_json(Later(**values, dropout=0.5).to_json())
