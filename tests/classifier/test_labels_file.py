"""Labels files, as people and their programs write them."""

from __future__ import annotations

import pytest

from flowers_batch.classifier.labels_file import LabelsFile, class_name, read_labels


@pytest.mark.parametrize(
    "written",
    ["Gänse blume", " Ga\u0308nse blume\t", "\ufeffGänse blume\u00a0", "\u200b\u00a0\u200bGänse blume\u2060\n"],
)
def test_class_name_is_composed_and_has_no_invisible_ends(written):
    assert class_name(written) == "Gänse blume"


def test_class_names_of_a_file_are_normalised(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\na,Ga\u0308nseblume\u00a0\nb,Gänseblume\nc,\u00a0\n", "utf-8")
    assert read_labels(str(tmp_path / "labels.csv")) == LabelsFile({"a": "Gänseblume", "b": "Gänseblume"}, 1)
