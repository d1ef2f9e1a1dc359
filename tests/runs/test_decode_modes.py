"""A folder of codes keeps the mode in which its photos were decoded."""

from __future__ import annotations

import pytest
from helpers import encoded, fingerprint, random_pixels

import flowers_batch as fb
from flowers_batch.dataset.job import Job, write_job
from flowers_batch.dataset.run_folder import CODES
from flowers_batch.runs import encode as encode_module
from flowers_batch.storage.opening import open_folder


class PlannedError(Exception):
    """Ends a run before actors are started."""


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Return a function that begins a folder in one mode and goes on in another, and returns what actors would do."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(encoded(random_pixels(9, 9)))
    planned = []

    def execute(self, manifest, factory, *rest):
        planned.append(factory.config.decode)
        raise PlannedError

    monkeypatch.setattr(encode_module.RunExecution, "plan_images", lambda *_: None)
    monkeypatch.setattr(encode_module.RunExecution, "execute", execute)

    def begin(first: str, then: str) -> str:
        out = tmp_path / f"{first}-{then}"
        out.mkdir()
        write_job(open_folder(out), Job(CODES, str(tmp_path / "photos"), fingerprint(decode=first), "null"))
        with pytest.raises(PlannedError):
            fb.encode(tmp_path / "photos", out, fb.EncodeConfig(network="null", decode=then, precision="float32"))
        return planned[-1]

    return begin


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_folder_that_was_begun_keeps_its_decode_mode(begun, mode):
    assert begun(mode, "auto") == mode


def test_codes_of_different_decode_modes_do_not_mix(begun):
    with pytest.raises(fb.InputError, match=r"holds codes of another kind: decode \(fast, not exact\)"):
        begun("exact", "fast")
