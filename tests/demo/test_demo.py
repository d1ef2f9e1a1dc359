from __future__ import annotations

import pytest
from planting import PLANTS, plant

from flowers_batch.demo.demo import run_demo
from flowers_batch.errors import InputError

MARK = "flowers_batch_demo.txt"


@pytest.mark.parametrize("kind", PLANTS)
def test_demo_refuses_a_planted_mark_and_its_target_stays(tmp_path, private, kind):
    out = tmp_path / "out"
    out.mkdir()
    plant(kind, out / MARK, private)
    with pytest.raises(InputError, match=rf"{MARK} cannot be written|other than a demo"):
        run_demo(out, offline=True)


@pytest.mark.parametrize("name", ["photos", "synthetic", "codes", "model", "predictions"])
def test_demo_refuses_a_linked_folder_and_its_target_stays(tmp_path, private, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / MARK).touch()
    (out / name).symlink_to(private.parent)
    with pytest.raises(InputError, match=f"{name} is a link, which is not followed"):
        run_demo(out, offline=True)
