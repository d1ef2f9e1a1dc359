"""Labels of the photos in one file: a column of a table, or the members of a tar that are beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from flowers_batch.classifier.labels_file import MAX_LABEL_CHARACTERS, label_text
from flowers_batch.errors import InputError
from flowers_batch.sources.containers import ContainerSource
from flowers_batch.sources.images import path_bytes
from flowers_batch.sources.source import Source
from flowers_batch.sources.table_columns import TableColumn, value_columns
from flowers_batch.sources.tables import TableSource
from flowers_batch.sources.tar_samples import SampleValues, first_values
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.parquet_files import read_parquet_schema
from flowers_batch.storage.retries import with_retries

UNREADABLE = ""  # stands for a label that is there, and is none
_FIELD = re.compile(r"((?:.+\.)?json)\.(.+)", re.IGNORECASE)  # a member's ending, and a field of it
_COLUMNS_SHOWN = 20
_MEMBERS_SEEN = 1000  # of a tar, to find out which labels there are


class FileLabels(Protocol):
    """The labels of the photos in one file."""

    def of(self, paths: Sequence[str], offsets: Sequence[int]) -> list[str | None]:
        """Return each photo's label, None where there is none, `UNREADABLE` where it is none."""


class TableLabels:
    """The labels of the photos in one table."""

    def __init__(self, source: ContainerSource, name: str, column: str):
        with _reading(source.folder, name):
            self._column = with_retries(lambda: TableColumn(source.folder.open(name), column))
        if column not in self._column:
            raise no_column(source, column, name)
        self._name, self._folder = name, source.folder

    def of(self, paths: Sequence[str], offsets: Sequence[int]) -> list[str | None]:
        """Return the labels of rows; their paths do not matter."""
        with _reading(self._folder, self._name):
            values = self._column.take(offsets)
        return [self._label(value) for value in values]

    def _label(self, value: Any) -> str | None:
        names = self._column.class_names
        if names is None or not isinstance(value, int):
            return _label(value)
        if value < 0:  # the convention for rows whose label is kept secret
            return None
        return _label(names[value]) if value < len(names) else UNREADABLE


class TarLabels:
    """The labels of the photos in one tar."""

    def __init__(self, source: ContainerSource, name: str, column: str):
        ending, field = ending_and_field(column)
        if _is_json(ending) and not field:
            raise no_column(source, column)
        interpret = partial(_field_label, field) if field else _text_label
        with _reading(source.folder, name):
            self._values = with_retries(lambda: SampleValues(source.folder, name, ending, interpret))
        self._prefix = len(name.encode()) + 1  # of `tar!member`

    def of(self, paths: Sequence[str], offsets: Sequence[int]) -> list[str | None]:
        """Return the labels of members."""
        members = [path_bytes(path)[self._prefix :] for path in paths]
        return [self._values.get(member, offset) for member, offset in zip(members, offsets, strict=True)]


def _text_label(content: bytes | None) -> str | None:
    """Return the label that a member's text is."""
    try:
        return UNREADABLE if content is None else _label(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return UNREADABLE


def _field_label(field: str, content: bytes | None) -> str | None:
    """Return the label that a field of a JSON member is."""
    try:
        value = json.loads(content or b"")
        return _label(_field_of(value, field)) if isinstance(value, dict) else UNREADABLE
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        return UNREADABLE


def _field_of(value: dict[str, Any], field: str) -> Any:
    if field in value or "." not in field:
        return value.get(field)
    first, _, rest = field.partition(".")
    inner = value.get(first)
    return _field_of(inner, rest) if isinstance(inner, dict) else None


def _label(value: Any) -> str | None:
    """Return a label for a value, None for an empty one, `UNREADABLE` for what is no class's name."""
    if isinstance(value, dict | list):
        return UNREADABLE
    text = label_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may have half of a surrogate pair
        return UNREADABLE
    return UNREADABLE if len(text) > MAX_LABEL_CHARACTERS else text or None


def ending_and_field(column: str) -> tuple[str, str]:
    """Return the ending of members, and the field of their JSON; empty for members of text."""
    found = _FIELD.fullmatch(column)
    return (found[1].lower(), found[2]) if found else (column.lower(), "")


def _is_json(ending: str) -> bool:
    return ending.rpartition(".")[2] == "json"


def columns_in(source: Source) -> list[str]:
    """Return the columns of labels that the first file of a source has.

    Raises:
        InputError: The file is damaged.
        RunError: The disk or the store fails.
    """
    names = source.folder.matching(source.name) if isinstance(source, ContainerSource) else []
    if not names:
        return []
    with _reading(source.folder, names[0]):
        if isinstance(source, TableSource):
            with source.folder.open(names[0]) as file:
                return value_columns(read_parquet_schema(file))
        members = first_values(source.folder, names[0], _MEMBERS_SEEN)
        return list(dict.fromkeys(column for ending, content in members for column in _member_columns(ending, content)))


def _member_columns(ending: str, content: bytes) -> Iterator[str]:
    if not _is_json(ending):
        yield ending
        return
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        yield from (f"{ending}.{field}" for field in value if _label(_field_of(value, field)))


def no_column(source: ContainerSource, name: str, file: str | None = None) -> InputError:
    """Return the error for labels that are not there, with those that are."""
    columns = [f"column:{column}" for column in columns_in(source)]
    shown = ", ".join(columns[:_COLUMNS_SHOWN]) + (" and others" if len(columns) > _COLUMNS_SHOWN else "")
    where = source.folder.url_of(file) if file else source.url
    advice = f"choose `labels` {shown}" if columns else "give `labels` a CSV or Parquet file with path,label"
    return InputError(f"There are no labels column:{name} in {where}: {advice}.")


@contextmanager
def _reading(folder: Folder, name: str) -> Iterator[None]:
    """Explain errors of reading labels from a file."""
    try:
        yield
    # IndexError: a table has lost rows; UnicodeDecodeError: its text is not UTF-8.
    except (OSError, IndexError, UnicodeDecodeError, pa.ArrowException) as error:
        url = folder.url_of(name)
        raise_io_error(url, error)
        raise InputError(f"The labels in {url} cannot be read ({reason_of(error)}): restore it.") from None
