"""Options of commands that are derived from the fields of configs: their names, types, defaults and explanations."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any

import typer

from flowers_batch.config import AUGMENT, ClusterConfig, FinetuneConfig
from flowers_batch.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class Spelling:
    """How a setting is written on the command line, where that differs from Python.

    Attributes:
        parse: Returns the setting's value for a text.
        default: The text of the default value.
        note: Ends the explanation.
    """

    parse: Callable[[str], Any]
    default: str
    note: str = ""


def _count_or_auto(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"`actors` must be auto or a number. Received: {text}.") from None


def _names_or_none(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


_SPELLINGS = {
    (ClusterConfig, "actors"): Spelling(_count_or_auto, "auto"),
    (FinetuneConfig, "augment"): Spelling(_names_or_none, ",".join(AUGMENT), "`none` switches them off."),
}


@dataclass(frozen=True)
class ConfigOptions:
    """The settings of a config that a command takes as options; annotates the parameter that gets the config.

    Attributes:
        config: The config, a dataclass. The settings of configs that are its fields are options, too.
        without: Names of settings that the command does not take.
        only: Names of the settings that it takes; all if empty.
        partial: Whether the parameter gets a dict of the given settings instead of a config.
        help: Explanations in place of those of the fields.
    """

    config: type[Any]
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    partial: bool = False
    help: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> list[inspect.Parameter]:
        """Return the options as parameters of a Typer command."""
        settings = [*self._settings()]
        configs = dict.fromkeys(config for config, _ in settings)  # each is read once: all commands are made at start
        kinds = {config: typing.get_type_hints(config) for config in configs}
        texts = {config: {**explanations(config), **self.help} for config in configs}
        names = {each.name for _, each in settings}
        return [
            self._parameter(config, each, kinds[config][each.name], as_options(texts[config][each.name], names))
            for config, each in settings
        ]

    def build(self, values: Mapping[str, Any]) -> Any:
        """Return the config, or the dict if `partial`, for the values of the options.

        Raises:
            InputError: A value is wrong.
        """
        given = {
            each.name: _parsed(config, each.name, values[each.name])
            for config, each in self._settings()
            if not (self.partial and values[each.name] is None)
        }
        return given if self.partial else _built(self.config, given)

    def _settings(self) -> Iterator[tuple[type[Any], Field[Any]]]:
        for config, each in _settings_of(self.config):
            if each.name not in self.without and (not self.only or each.name in self.only):
                yield config, each

    def _parameter(self, config: type[Any], each: Field[Any], kind: Any, text: str) -> inspect.Parameter:
        default = each.default
        if spelling := _SPELLINGS.get((config, each.name)):
            kind, default, text = str, spelling.default, f"{text} {spelling.note}".rstrip()
        elif typing.get_origin(kind) is tuple:
            kind, default, text = (
                list[str],
                [*typing.cast(tuple[str, ...], each.default)],
                f"{text} May be given several times.",
            )
        names = [option_of(each.name)] if kind is bool else []  # without a --no- option beside it
        if self.partial:
            kind, default = kind | None, None
        option = typer.Option(*names, help=text)
        return inspect.Parameter(
            each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )


def option_of(name: str) -> str:
    """Return the option for a setting: --shard-size for shard_size."""
    return "--" + name.rstrip("_").replace("_", "-")


def as_options(sentence: str, settings: Iterable[str]) -> str:
    """Return a sentence with options in place of the settings that it names: --shard-size for `shard_size`."""
    known = set(settings)
    return re.sub(r"`(\w+)`", lambda name: option_of(name[1]) if name[1] in known else name[0], sentence)


def explanations(config: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a config and its bases say of each setting, under `Attributes:`."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__):
        _, _, attributes = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found


def _settings_of(config: type[Any]) -> Iterator[tuple[type[Any], Field[Any]]]:
    """Yield the settings, each with the config that it is of: a class's own before its bases', other configs' last."""
    position = {name: number for number, each in enumerate(config.__mro__) for name in inspect.get_annotations(each)}
    own = sorted(fields(config), key=lambda each: position[each.name])
    yield from ((config, each) for each in own if not is_dataclass(each.default_factory))
    for each in own:
        if is_dataclass(each.default_factory):
            yield from _settings_of(typing.cast(type[Any], each.default_factory))


def _built(config: type[Any], given: Mapping[str, Any]) -> Any:
    arguments = {}
    for each in fields(config):
        if is_dataclass(each.default_factory):
            arguments[each.name] = _built(typing.cast(type[Any], each.default_factory), given)
        elif each.name in given:
            arguments[each.name] = given[each.name]
    return config(**arguments)


def _parsed(config: type[Any], name: str, value: Any) -> Any:
    if spelling := _SPELLINGS.get((config, name)):
        return spelling.parse(value)
    return tuple(value) if isinstance(value, list) else value
