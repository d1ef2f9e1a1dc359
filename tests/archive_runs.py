"""Runs over small archives with hostile names, for the pages."""

from __future__ import annotations

from pathlib import Path

from helpers import draw_archive

import flowers_batch as fb

EVIL = (
    "<script>alert(1)</script>.png",
    '"quo\'te".png',
    "new\nline.png",
    "right\u202etoleft.png",
    "<img src=x onerror=alert(1)>.png",
)


def predict_drawn(base: Path) -> Path:
    """Write codes, model and predictions of 91 photos: hostile names, a duplicate, and a file that is not an image."""
    photos = draw_archive(base / "photos", 30)
    for number, name in enumerate(EVIL):
        (photos / "red" / f"{number:04d}.png").rename(photos / "red" / name.replace("/", "\u2044"))
    (photos / "green" / "copy.png").write_bytes((photos / "green" / "0001.png").read_bytes())
    (photos / "blue" / "bad<b>.jpg").write_text("nothing")
    fb.encode(photos, base / "codes", fb.EncodeConfig(network="null"))
    fb.train(base / "codes", base / "model", fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(base / "codes", base / "predictions", base / "model")
    return base


def predict_with_link(base: Path) -> Path:
    """Write codes, model and predictions of 30 photos, a link to one outside, and a file that is no image.

    The photo outside is `secret/red/0000.png`, the link `photos/red/link.png`.
    """
    photos = draw_archive(base / "photos", 10)
    secret = draw_archive(base / "secret", 1) / "red" / "0000.png"
    (photos / "red" / "link.png").symlink_to(secret)
    (photos / "blue" / "bad.jpg").write_text("nothing")
    fb.encode(photos, base / "codes", fb.EncodeConfig(network="null"))
    fb.train(base / "codes", base / "model", fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(base / "codes", base / "predictions", base / "model")
    return base
