"""Which keywords are classes: names and synonyms, as `classes` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pyarrow import fs

from flowers_batch.classifier.labels_file import MAX_LABEL_CHARACTERS, class_name
from flowers_batch.errors import InputError
from flowers_batch.metadata.archive_keywords import folded
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.opening import split_file
from flowers_batch.text import shortened

_FILE = ".txt"  # ends a value that names a file
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class KeywordClasses:
    """Classes, and the keywords that stand for them.

    Attributes:
        names: The classes.
        by_keyword: The class of each keyword, which is `folded`.
    """

    names: tuple[str, ...]
    by_keyword: dict[str, str]

    def of(self, keywords: Iterable[str]) -> list[str]:
        """Return the classes of a photo's keywords, sorted: a keyword's path stands for its last level, too."""
        forms = (form for keyword in keywords for form in (keyword, keyword.rpartition("/")[2]))
        return sorted({self.by_keyword[key] for form in forms if (key := folded(form)) in self.by_keyword})


def read_classes(values: Sequence[str]) -> KeywordClasses:
    """Return the classes that `classes` names.

    Args:
        values: Each is some classes (`rose,tulip`), one with its synonyms (`rose=Rosa,roses`), or a text file that has
            such a value in each line (`classes.txt`).

    Raises:
        InputError: A value is not valid, a file cannot be read, or a keyword stands for two classes.
    """
    by_keyword: dict[str, str] = {}
    names: dict[str, None] = {}
    for entry in expand_classes(values):
        name, *keywords = _keywords_in(entry)
        names[name] = None
        for keyword in (name, *keywords):
            other = by_keyword.setdefault(folded(keyword), name)
            if other != name:
                raise InputError(
                    f"In `classes`, {shortened(keyword)} stands for {shortened(other)} and for {shortened(name)}: name "
                    "it once."
                )
    return KeywordClasses(tuple(names), by_keyword)


def expand_classes(values: Sequence[str]) -> tuple[str, ...]:
    """Return what `classes` says, an entry for each class, without files: valid in any working directory.

    Raises:
        InputError: A file cannot be read, or a value has synonyms of several classes.
    """
    return tuple(entry for value in values for entry in _entries(value))


def _entries(value: str) -> Iterator[str]:
    if value.endswith(_FILE):
        for line in _lines(value):
            if line.endswith(_FILE):
                raise InputError(f"The file of classes {value} names the file {shortened(line)}: list its classes.")
            yield from _entries(line)
    elif "=" not in value:
        yield from value.split(",")
    elif value.count("=") > 1 or "," in value.partition("=")[0]:
        raise InputError(
            "`classes` takes one class with synonyms at a time, such as rose=Rosa,roses: give it several times. "
            f"Received: {shortened(value)}."
        )
    else:
        yield value


def _keywords_in(entry: str) -> list[str]:
    """Return the class in an entry, and its synonyms."""
    name, _, synonyms = entry.partition("=")
    keywords = [_name(each, entry) for each in (name, *(synonyms.split(",") if synonyms else ()))]
    if long := [each for each in keywords if len(each) > MAX_LABEL_CHARACTERS]:
        raise InputError(
            f"{shortened(long[0])} in `classes` has {len(long[0])} characters, and {MAX_LABEL_CHARACTERS} are allowed: "
            "shorten it."
        )
    return keywords


def _name(text: str, entry: str) -> str:
    levels = [class_name(level) for level in text.split("/")]
    if not all(levels):
        raise InputError(
            f"`classes` must be names such as rose,tulip or animal/bird, and rose=Rosa,roses. Received: "
            f"{shortened(entry) or 'nothing'}."
        )
    return "/".join(levels)


def _lines(file: str) -> list[str]:
    """Return the lines of a file of classes without blank ones and comments."""
    folder, name = split_file(file)
    if folder.info(name).type != fs.FileType.File:
        raise InputError(f"There is no file of classes {file}: name a text file with a class per line.")
    try:
        with folder.open(name) as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise InputError(f"The file of classes {file} has more than {_MAX_FILE_BYTES} bytes: list classes only.")
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"The file of classes {file} is not UTF-8: save it as UTF-8.") from None
    except OSError as error:
        raise_io_error(file, error)
        raise InputError(f"The file of classes {file} cannot be read ({reason_of(error)}): restore it.") from None
    return [line for line in lines if line and not line.startswith("#")]
