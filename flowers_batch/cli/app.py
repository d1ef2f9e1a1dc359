"""The application, and what all of its commands have in common."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from flowers_batch import __version__
from flowers_batch.cli.failures import failures_as_sentences
from flowers_batch.cli.options import ConfigOptions, Debug, Json
from flowers_batch.errors import InputError
from flowers_batch.pandas_import import keep_arrow_from_importing_pandas
from flowers_batch.progress import STYLES, console_reporter
from flowers_batch.text import visible, visible_lines

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Output:
    """The result of a command.

    Attributes:
        value: What `--json` prints.
        text: What is printed otherwise.
        notes: Sentences for standard error.
        exit_code: The process's.
    """

    value: Any
    text: str
    notes: Sequence[str] = ()
    exit_code: int = 0


@dataclass(frozen=True)
class _Settings:
    """The options of the application, which hold for every command."""

    progress: str
    debug: bool


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"flowers-batch {__version__}")
        raise typer.Exit


@app.callback()
def application(
    context: typer.Context,
    progress: Annotated[
        str, typer.Option(help="How progress is shown: bar, lines, json, or auto: a bar on a terminal, else lines.")
    ] = "auto",
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Label a photo archive of any size with a classifier that is trained on some of its photos."""
    with failures_as_sentences(context, debug):
        if progress not in STYLES:
            raise InputError(f"`progress` must be one of {', '.join(STYLES)}. Received: {progress}.")
    context.obj = _Settings(progress, debug)


def command(
    group: typer.Typer, name: str | None = None, *, example: str, has_result: bool = True
) -> Callable[[Callable[..., Output | None]], Callable[..., None]]:
    """Register a function as a command.

    A parameter of the function that is annotated with `ConfigOptions` becomes options; one named `reporter` gets a
    reporter on standard error. What the function, or a library, prints meanwhile goes to standard error, too.

    Args:
        group: The application, or a group of its commands.
        name: The command's name; by default the function's.
        example: Ends the command's help.
        has_result: Whether the function returns an `Output`, to be printed on standard output; otherwise it prints
            there itself.
    """

    def register(function: Callable[..., Output | None]) -> Callable[..., None]:
        parameters = inspect.signature(function, eval_str=True).parameters
        configs = {each.name: options for each in parameters.values() if (options := _config_options(each))}

        @functools.wraps(function)
        def run(context: typer.Context, debug: bool, json_: bool = False, **values: Any) -> None:
            with failures_as_sentences(context, debug or context.obj.debug):
                for each, options in configs.items():
                    values[each] = options.build(values)
                arguments = {each: value for each, value in values.items() if each in parameters}
                if not has_result:
                    _run(function, arguments, context)
                    return
                with redirect_stdout(sys.stderr):
                    output = _run(function, arguments, context)
            for note in output.notes:
                print(visible(note), file=sys.stderr)
            # JSON in ASCII, which is valid whatever the stream's encoding is.
            print(json.dumps(output.value) if json_ else visible_lines(output.text))
            raise typer.Exit(output.exit_code)

        run.__signature__ = inspect.Signature(_of_command(parameters.values(), configs, has_result))  # type: ignore[attr-defined]
        run.__annotations__ = {}
        group.command(name, epilog=f"Example: {example}")(run)
        return run

    return register


def _run(function: Callable[..., Any], arguments: dict[str, Any], context: typer.Context) -> Output:
    keep_arrow_from_importing_pandas()
    if "reporter" not in inspect.signature(function).parameters:
        return function(**arguments)
    with console_reporter(context.info_name or "", context.obj.progress) as reporter:
        return function(**arguments, reporter=reporter)


def _config_options(parameter: inspect.Parameter) -> ConfigOptions | None:
    metadata = getattr(parameter.annotation, "__metadata__", ())
    return next((each for each in metadata if isinstance(each, ConfigOptions)), None)


def _of_command(
    parameters: Iterable[inspect.Parameter], configs: dict[str, ConfigOptions], has_result: bool
) -> list[inspect.Parameter]:
    """Return a command's parameters for Typer: a function's, with options in place of configs, and the common ones."""
    found = [_keyword("context", typer.Context)]
    for each in parameters:
        if each.name in configs:
            found += configs[each.name].parameters()
        elif each.name != "reporter":
            found.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    if has_result:
        found.append(_keyword("json_", Json, False))
    return [*found, _keyword("debug", Debug, False)]


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
