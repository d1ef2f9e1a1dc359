"""The examples, run as a reader runs them, on drawn photos and with the null network."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import flowers_batch as fb

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NULL = fb.EncodeConfig(network="null")


def run(name: str, *arguments: object) -> None:
    """Run an example's `main` with some arguments."""
    runpy.run_path(str(EXAMPLES / name))["main"]([str(argument) for argument in arguments])


@pytest.mark.slow
def test_flowers_script_trains_and_predicts_one_photo(archive, tmp_path, local_ray, capsys):
    photo = archive / "red" / "0003.png"
    run("flowers.py", archive, tmp_path / "run", "--network", "null", "--photo", photo)
    printed = capsys.readouterr().out
    assert "encoded 30 photos; 0 could not be read" in printed
    assert "test accuracy 100.0%" in printed
    predicted = printed.partition(f"{photo}\n")[2].splitlines()
    assert len(predicted) == 3 and predicted[0].split()[0] == "red"


@pytest.mark.slow
def test_flowers_notebook_runs_from_top_to_bottom(archive, tmp_path, local_ray, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    cells = json.loads((EXAMPLES / "flowers.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    assert not any(cell["outputs"] for cell in code)
    names: dict[str, Any] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
        if cell["metadata"].get("tags") == ["parameters"]:
            names |= {"PHOTOS": archive, "RUN": tmp_path, "ENCODING": NULL}
    assert names["test"]["accuracy"] == 1
    assert names["row"]["prediction"] == "blue"  # of the first photo
    assert (tmp_path / "report.html").exists()
    assert "test accuracy 100.0%" in capsys.readouterr().out
