"""The course notebook as a script: photos in one folder per class, codes, a classifier, and one prediction.

The course encoded flower photos with VGG16, trained a network with one hidden layer of 256 units on the codes, and
looked at the prediction for a single photo. The same steps here, with a run that can be stopped and continued:

    python examples/flowers.py photos run --photo photos/tulips/one.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

import flowers_batch as fb
from flowers_batch.text import visible


def predict_one(photo: Path, run: Path) -> dict[str, float]:
    """Return the probability of the likeliest classes for one photo, highest first.

    Args:
        photo: An image file.
        run: The folder with the trained classifier in `model/`.
    """
    one = run / "one"
    one.mkdir(exist_ok=True)
    (one / "list.txt").unlink(missing_ok=True)
    with (one / "list.txt").open("x", encoding="utf-8") as file:  # never through a link that another user made
        file.write(f"{photo.absolute()}\n")
    fb.predict(one / "list.txt", one / f"predictions-of-{photo.stem}", run / "model")
    (row,) = pq.read_table(one / f"predictions-of-{photo.stem}" / "predictions").to_pylist()
    if row["status"] == "failed":
        raise SystemExit(f"{photo} cannot be read ({row['reason']}): {row['message']}")
    return dict(zip(row["top_labels"], row["top_probabilities"], strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode the photos, train a classifier, print its accuracy, and predict one photo."""
    parser = argparse.ArgumentParser(description="Photos in one folder per class, codes, a classifier, one prediction.")
    parser.add_argument("photos", type=Path, help="folder with one subfolder of photos per class")
    parser.add_argument("run", type=Path, help="folder for the codes and the classifier")
    parser.add_argument("--photo", type=Path, help="photo to predict; default: the first one")
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--weights", default="imagenet", help="imagenet, a weights file, or random:SEED")
    parser.add_argument("--layer", default="relu6", help="layer whose values are the code")
    parser.add_argument("--pool", help="avg, max or flatten, for a layer with feature maps")
    parser.add_argument("--head", default="mlp", help="mlp, logistic, or auto: the better of both, for few photos")
    given = parser.parse_args(arguments)

    encoding = fb.EncodeConfig(network=given.network, weights=given.weights, layer=given.layer, pool=given.pool)
    with fb.console_reporter("encode") as reporter:
        summary = fb.encode(given.photos, given.run / "codes", encoding, reporter=reporter)
    print(f"encoded {summary.ok} photos; {summary.failed} could not be read")

    metrics = fb.train(given.run / "codes", given.run / "model", fb.TrainConfig(("folder",), head=given.head))
    test = metrics["test"]
    low, high = test["interval95"]
    print(f"test accuracy {test['accuracy']:.1%} of {test['photos']} photos, 95% interval {low:.1%} to {high:.1%}")

    photo = given.photo or next(path for path in sorted(given.photos.glob("*/*")) if path.is_file())
    print(visible(str(photo)))
    for label, probability in predict_one(photo, given.run).items():
        print(f"  {visible(label):12} {probability:6.1%} {'#' * round(40 * probability)}".rstrip())


if __name__ == "__main__":
    main()
