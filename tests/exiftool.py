"""What ExifTool reads in a file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="ExifTool is not installed (Debian: libimage-exiftool-perl)"
)
_ABOUT_THE_FILE = ("SourceFile", "System:", "File:", "ExifTool:")


def fields_of(*files: Path) -> list[dict[str, Any]]:
    """Return the fields of files, without those about the files themselves."""
    printed = subprocess.run(
        ["exiftool", "-a", "-G1", "-struct", "-j", "-sort", *map(str, files)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return [
        {name: value for name, value in found.items() if not name.startswith(_ABOUT_THE_FILE)}
        for found in json.loads(printed.stdout)
    ]


def change(*arguments: str | Path) -> None:
    """Have ExifTool change a file, which is the last argument."""
    subprocess.run(["exiftool", "-q", "-overwrite_original", *map(str, arguments)], check=True, timeout=60)
