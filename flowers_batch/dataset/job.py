"""What a run was asked for and made with: `job.json`."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib.metadata import version

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import FORMAT, in_current_format, with_format
from flowers_batch.dataset.schema import CODES, PIXELS, PREDICTIONS
from flowers_batch.dataset.tunings import Tunings, validated_tunings
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.json_values import check_shape
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import read_json, write_json

JOB = "job.json"
_LIBRARIES = ("flowers-batch", "ray", "tensorflow", "keras", "numpy", "pyarrow", "pillow", "simplejpeg")
_JOB_SHAPE = {
    "kind": (CODES, PREDICTIONS, PIXELS),
    "images": str,
    "fingerprint": dict,
    "weights": str,
    "root": (str, None),
    "model": (str, None),
    "codes": (str, None),
    "versions": {str: str},
}


@dataclass(frozen=True)
class Job:
    """What made a run's folder: `job.json`.

    Attributes:
        kind: `CODES`, `PREDICTIONS` or `PIXELS`.
        images: An absolute path or a URL.
        fingerprint: What the rows depend on.
        weights: The weights' name.
        root: What the paths of a list are relative to; None: the folder of the list.
        model: The model folder; None for codes.
        codes: The codes folder that predictions were made from; None where they were made from images.
        versions: Versions of Python and of the libraries.
        format: The format number of the file that it was read from.
        tuned_on: Of codes: what the network was fine-tuned on; empty if it was not.
    """

    kind: str
    images: str
    fingerprint: Fingerprint
    weights: str
    root: str | None = None
    model: str | None = None
    codes: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    tuned_on: Tunings = ()


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that rows depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def write_job(folder: Folder, job: Job) -> None:
    """Publish `job.json`."""
    content = {
        "kind": job.kind,
        "images": job.images,
        "fingerprint": job.fingerprint.to_json(),
        "weights": job.weights,
        "root": job.root,
        "model": job.model,
        "codes": job.codes,
        "tuned_on": job.tuned_on,
        "versions": job.versions,
        "digest": job.fingerprint.digest,
    }
    write_json(folder, JOB, with_format(content))


def read_job(folder: Folder) -> Job | None:
    """Return the content of `job.json`, None without it; unknown fields are ignored, except in the fingerprint.

    Raises:
        InputError: It is damaged, or a newer version of flowers_batch wrote it.
    """
    try:
        content = read_json(folder, JOB)
    except FileNotFoundError:
        return None
    try:
        job = in_current_format(content, folder.url_of(JOB), formats_0_1.upgrade_job)
        check_shape(job, _JOB_SHAPE)
        fingerprint = Fingerprint.from_json(job["fingerprint"])
        if fingerprint.is_of_pixels != (job["kind"] == PIXELS):
            raise TypeError(f"its fingerprint is not one of {job['kind']}")
        return Job(
            kind=job["kind"],
            images=job["images"],
            fingerprint=fingerprint,
            weights=job["weights"],
            root=job["root"],
            model=job["model"],
            codes=job["codes"],
            versions=job["versions"],
            format=content.get("format", 1),
            tuned_on=validated_tunings(job.get("tuned_on", [])),
        )
    except TypeError as error:
        raise InputError(f"{folder.url_of(JOB)} is damaged ({error}): restore it, or begin in a new folder.") from None
