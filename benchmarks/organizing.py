"""What it takes to make a tree with a folder per class, to make it again, to replace its entries, and to empty it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Claim, most_memory, parse_arguments, report, timed
from tagging import write_photos, write_predictions

import flowers_batch as fb

PHOTOS = 100_000
SECONDS = 30


def measure(predictions: Path, tree: Path, **config: float) -> dict[str, object]:
    """Organize, and return what it took."""
    before = most_memory()
    result, taken = timed(lambda: fb.organize(predictions, tree, fb.OrganizeConfig(**config)))
    return {
        "seconds": round(taken.seconds, 1),
        "CPU seconds": round(taken.cpu_seconds, 1),
        "photos/s": round(result["photos"] / taken.seconds),
        "more memory, MB": round((most_memory() - before) / 2**20),
        **{name: result[name] for name in ("new", "unchanged", "replaced", "removed")},
    }


def main() -> None:
    """Measure, and print the claims."""
    options = parse_arguments(__doc__, count={"type": int, "default": PHOTOS})
    with tempfile.TemporaryDirectory() as scratch:
        photos, tree = Path(scratch, "photos"), Path(scratch, "tree")
        paths = write_photos(photos, options.count)
        predictions = write_predictions(Path(scratch, "predictions"), photos, paths, "model")
        runs = {
            "new": measure(predictions, tree),
            "the same again": measure(predictions, tree),
            "as hard links": measure(predictions, tree, hardlink=True),
            "no label is certain": measure(predictions, tree, min_probability=1.0),
        }
    claims = [
        Claim(
            f"CPU seconds to link {options.count} photos",
            float(str(runs["new"]["CPU seconds"])),
            SECONDS,
            at_least=False,
        ),
        Claim("links that a second run makes", float(str(runs["the same again"]["new"])), 0, at_least=False),
    ]
    report("organizing", claims, {"runs": [{"run": name} | found for name, found in runs.items()]})


if __name__ == "__main__":
    main()
