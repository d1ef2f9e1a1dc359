"""Where the held-out photos of a model are, as far as its files may be followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowers_batch.classifier.model_folder import MODEL, Model
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.job import JOB, read_job
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import PathOrUrl, open_folder


@dataclass(frozen=True)
class HeldOutPlaces:
    """Where the codes of a model, and the photos of these codes, are.

    Attributes:
        codes: The codes folder; None if it is not followed.
        images, root: The photos, as `open_source` takes both; None if they are not followed.
    """

    codes: str | None = None
    images: str | None = None
    root: str | None = None


def find_places(
    folder: Folder, model: Model, run: Run | None, given: Mapping[str, PathOrUrl | None], notes: list[str]
) -> HeldOutPlaces:
    """Return where the codes of a model and their photos are.

    Args:
        folder: The model folder.
        model: The model in it.
        run: The run that is reported on; None for a report on the model.
        given: `images` and `root`, if the user says where the photos of the run, or else of the model, are; `codes`.
        notes: Gains a sentence if the photos of a run's model are not followed.

    Raises:
        InputError: The photos of a report on a model are not followed.
    """
    if run and run.job.images != model.images:  # other photos than those that the user speaks of
        given = {"codes": given.get("codes")}
    codes = None
    try:
        codes = follow(folder, MODEL, "codes", model.codes, given.get("codes"))
        source = open_folder(codes)
        job = read_job(source)
        root = follow(source, JOB, "root", job.root if job else None, given.get("root"))
        return HeldOutPlaces(codes, follow(folder, MODEL, "images", model.images, given.get("images")), root)
    except InputError as error:
        if run is None:
            raise
        notes.append(f"The held-out photos are not shown: {error}")
        return HeldOutPlaces(codes)
