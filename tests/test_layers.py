"""Imports go one way: a room knows those below it, and none above."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NETWORK = {"tensorflow_vgg"}

# What each room may import; every room may import config.
BELOW = {
    "config": set(),
    "progress": set(),
    "drawings": set(),
    "storage": set(),
    "reading": {"storage"},
    "sorting": {"reading"},
    "lists": {"sorting", "reading", "storage"},
    "containers": {"sorting", "reading", "storage"},
    "sources": {"containers", "lists", "reading", "storage"},
    "dataset": {"storage"},
    "shards": {"sources", "sorting", "dataset", "storage"},
    "decode": set(),
    "heads": {"storage"},
    "inspection": {"decode", "sources"},
    "device": set(),
    "feed": {"decode", "sources"},
    "encoder": {"device", "feed", "inspection", "heads", "dataset", "sources", "storage"} | NETWORK,
    "staffing": set(),
    "cluster": {"staffing", "device", "encoder", "shards", "dataset", "sources", "storage"},
    "runs": {"cluster", "encoder", "heads", "shards", "dataset", "sources", "storage", "progress"} | NETWORK,
    "labels": {"dataset", "storage"},
    "grouping": set(),
    "evaluation": set(),
    "samples": {"dataset"},
    "fitting": {"samples", "evaluation", "heads", "device"},
    "training": {"labels", "grouping", "samples", "fitting", "evaluation", "heads", "dataset", "storage"},
    "candidates": {"labels", "grouping", "samples", "fitting", "heads", "dataset", "storage"},
    "pixels": {"decode", "feed", "sources"},
    "augmentation": set(),
    "tuning": {
        "augmentation",
        "device",
        "encoder",
        "evaluation",
        "feed",
        "fitting",
        "heads",
        "pixels",
        "sources",
        "storage",
        "decode",
    }
    | NETWORK,
    "finetune": {
        "labels",
        "encoder",
        "cluster",
        "runs",
        "training",
        "tuning",
        "evaluation",
        "grouping",
        "heads",
        "shards",
        "dataset",
    }
    | {"sources", "storage", "progress"},
    "export": {"device", "encoder", "heads", "storage"} | NETWORK,
    "journal": {"labels", "dataset", "storage"},
    "review": {"journal", "candidates", "training", "thumbnails", "evaluation", "heads", "dataset"}
    | {"lists", "sources", "storage", "progress"},
    "server": {"review", "decode", "sources", "storage"},
    "verify": {"runs", "shards", "dataset", "storage"},
    "thumbnails": {"shards", "dataset", "sources", "lists", "reading", "decode", "storage"},
    "charts": set(),
    "report": {"charts", "thumbnails", "dataset", "sources", "decode", "heads", "storage"},
    "demo": {"runs", "training", "report", "verify", "drawings"} | NETWORK,
    "cli": {"demo", "verify", "report", "server", "finetune", "training", "candidates", "export", "runs", "encoder"}
    | {"progress"}
    | NETWORK,
    "__init__": {"finetune", "runs", "server", "training", "candidates", "export", "report", "verify"},
}
# The rooms that alone import a library, and whether they may do so before it is needed.
OWNERS = {
    "ray": ({"cluster"}, True),
    "sklearn": ({"fitting"}, False),
    "matplotlib": ({"charts"}, False),
    "cleanlab": ({"candidates"}, False),
    "onnx": ({"export"}, False),
    "starlette": ({"server"}, True),
    "uvicorn": ({"server"}, True),
    "tensorflow": ({"device", "export"}, False),
}


@dataclass(frozen=True)
class Import:
    """An import statement: what it names, and whether it runs as soon as its file is imported."""

    name: str
    at_once: bool


def imports(path: Path) -> list[Import]:
    """All imports of a file, but for those that only a type checker sees."""
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")).body, True))


def _imports(nodes: Iterable[ast.AST], at_once: bool) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (Import(name.name, at_once) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides which room it means"
            yield from (Import(f"{node.module}.{name.name}", at_once) for name in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(node.orelse, at_once)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(ast.iter_child_nodes(node), at_once and not is_function)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def rooms_of(found: list[Import]) -> set[str]:
    """Rooms of flowers_batch, and other packages of this project, that are imported."""
    names = [i.name.split(".") for i in found]
    own = {parts[1] for parts in names if parts[0] == "flowers_batch"}
    return own | {parts[0] for parts in names if parts[0] == "tensorflow_vgg"}


def test_order_of_the_rooms_has_no_circle():
    done: set[str] = set(NETWORK)
    while left := {room: below - done for room, below in BELOW.items() if room not in done}:
        free = {room for room, below in left.items() if not below}
        assert free, f"these import each other: {left}"
        done |= free


@pytest.mark.parametrize("path", files("flowers_batch"), ids=lambda path: path.stem)
def test_room_imports_only_rooms_below_it(path):
    assert path.stem in BELOW, f"{path.name} has no place in the order of the rooms"
    allowed = BELOW[path.stem] | ({"config"} if path.stem != "config" else set())
    assert rooms_of(imports(path)) <= allowed


@pytest.mark.parametrize("library", OWNERS)
def test_library_is_imported_by_the_room_that_owns_it_and_no_other(library):
    owners, may_be_at_once = OWNERS[library]
    found = {
        path.stem: [i for i in imports(path) if i.name.split(".")[0] == library] for path in files("flowers_batch")
    }
    assert {room for room, importing in found.items() if importing} == owners
    assert may_be_at_once or not any(i.at_once for owner in owners for i in found[owner])


def test_network_stands_alone():
    foreign = {"flowers_batch", "ray", "pyarrow", "tensorflow"}
    for path in files("tensorflow_vgg"):
        assert not foreign & {i.name.split(".")[0] for i in imports(path)}, path.name


@pytest.mark.parametrize("package", ["flowers_batch", "flowers_batch.cli"])
def test_package_and_command_start_without_anything_heavy(package):
    heavy = ["numpy", "ray", "tensorflow", "sklearn", "matplotlib", "pyarrow", "keras", "PIL", "skimage"]
    script = f"import sys, {package}; print(*sorted(set(sys.modules) & set({heavy})))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("first", ["pass", "import flowers_batch.report, flowers_batch.verify", "fb.Verification"])
def test_package_offers_its_calls_whatever_was_imported_before(first):
    """Rooms and calls share names: the room must not take the call's place."""
    script = f"import flowers_batch as fb; {first}; print(*(type(getattr(fb, name)).__name__ for name in fb.__all__))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == {"type", "function"}


def test_imports_are_found_wherever_they_stand(tmp_path):
    (tmp_path / "x.py").write_text(
        "import a\nfrom b.c import d\nif TYPE_CHECKING:\n    import e\nelse:\n    import f\n"
        "try:\n    import g\nexcept ImportError:\n    pass\ndef h():\n    import i\nclass J:\n    import k\n"
    )
    found = imports(tmp_path / "x.py")
    assert {i.name for i in found} == {"a", "b.c.d", "f", "g", "i", "k"}
    assert {i.name for i in found if not i.at_once} == {"i"}
