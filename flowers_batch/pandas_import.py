"""Keeping pandas out of processes that are ours alone, where nothing uses it."""

from __future__ import annotations

import sys


class _Refused:
    """Stands before the finders of modules."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not wanted here.", name=name)


def keep_arrow_from_importing_pandas() -> None:
    """Have pyarrow go without pandas, which it otherwise imports at its first conversion, if it is installed.

    That takes a quarter of a second and 40 MB. pyarrow still imports pandas if it is asked for one of its objects, and
    others can import it.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _Refused)
    try:
        pa.array([0])  # pyarrow asks for pandas once
    finally:
        sys.meta_path.remove(_Refused)
