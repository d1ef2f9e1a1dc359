"""`job.json`: written, read again, and refused if it is damaged."""

from __future__ import annotations

import json

import pytest
from helpers import fingerprint

from flowers_batch.dataset.job import Job, library_versions, read_job, write_job
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import open_folder


def test_job_is_read_as_it_was_written(tmp_path):
    folder = open_folder(tmp_path)
    made = fingerprint(head="h", top_k=3)
    job = Job(PREDICTIONS, "/photos", made, "random:0", "/root", "/model", "/codes", library_versions())
    assert read_job(folder) is None
    write_job(folder, job)
    assert read_job(folder) == job
    content = json.loads((tmp_path / "job.json").read_text())
    assert content["digest"] == job.fingerprint.digest
    assert content["fingerprint"] == job.fingerprint.to_json()
    assert {"python", "ray", "tensorflow", "numpy", "pyarrow"} <= content["versions"].keys()


def test_job_keeps_what_its_network_was_tuned_on(tmp_path):
    folder, tuning = open_folder(tmp_path), {"images": "/photos", "photos": 3, "sha256": "0f"}
    write_job(folder, Job(CODES, "/photos", fingerprint(), "random:0", tuned_on=(tuning,)))
    assert read_job(folder).tuned_on == (tuning,)
    write_json(folder, "job.json", read_json(folder, "job.json") | {"tuned_on": "photos"})
    with pytest.raises(InputError, match="is damaged"):
        read_job(folder)


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", '{"digest": "x"}', '{"format": "x"}', "less"])
def test_damaged_job_is_refused(tmp_path, content):
    folder = open_folder(tmp_path)
    write_job(folder, Job(CODES, "/photos", fingerprint(), "random:0"))
    if content == "less":
        known = read_json(folder, "job.json")
        del known["images"]
        content = json.dumps(known)
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(InputError, match=r"job\.json is damaged \(.+\): restore it, or begin in a new folder\.$"):
        read_job(folder)


def test_job_ignores_fields_that_it_does_not_know(tmp_path):
    folder, job = open_folder(tmp_path), Job(CODES, "/photos", fingerprint(), "random:0")
    write_job(folder, job)
    write_json(folder, "job.json", read_json(folder, "job.json") | {"new": 1})
    assert read_job(folder) == job


def test_job_with_unknown_field_in_its_fingerprint_is_refused(tmp_path):
    folder = open_folder(tmp_path)
    write_job(folder, Job(CODES, "/photos", fingerprint(), "random:0"))
    content = read_json(folder, "job.json")
    content["fingerprint"]["dropout"] = 0.5
    write_json(folder, "job.json", content)
    with pytest.raises(InputError, match=r"depends on dropout, which .* does not know: install a newer version"):
        read_job(folder)
