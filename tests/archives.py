"""Write the photos of a folder as archives of each kind."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def names(photos: Path) -> list[str]:
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))


def as_list(photos: Path, out: Path) -> Path:
    """A list whose entries are not in path order."""
    (out / "list.txt").write_text("".join(f"{photos / name}\n" for name in names(photos)[::-1]))
    return out / "list.txt"


def as_tars(photos: Path, out: Path) -> Path:
    """A tar per class, whose members are not in path order."""
    for folder in filter(Path.is_dir, photos.iterdir()):
        with tarfile.open(out / f"{folder.name}.tar", "w") as tar:
            for path in sorted(folder.iterdir(), reverse=True):
                tar.add(path, f"{folder.name}/{path.name}")
    return out / "*.tar"


def as_tables(photos: Path, out: Path) -> Path:
    """A table per class, as Hugging Face writes them, whose rows are not in path order."""
    for folder in filter(Path.is_dir, photos.iterdir()):
        paths = sorted(folder.iterdir(), reverse=True)
        rows = [{"bytes": path.read_bytes(), "path": f"{folder.name}/{path.name}"} for path in paths]
        pq.write_table(pa.table({"image": rows}), out / f"{folder.name}.parquet", row_group_size=3)
    return out / "*.parquet"


PATH_OF = {
    as_list: lambda photos, name: str(photos / name),
    as_tars: lambda photos, name: f"{Path(name).parent}.tar!{name}",
    as_tables: lambda photos, name: name,
}
