"""The documentation: its size, its links, and the commands, options, names and tests that it quotes."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
import typer
from helpers import ROOT

import flowers_batch as fb
from flowers_batch.cli.main import app

DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
PATH = re.compile(r"(?<![\w/])(?:flowers_batch|tensorflow_vgg|tests|benchmarks|docs|examples|jobs)/[\w./-]*\w")
OTHER_TOOLS = {"--no-wait", "--constraint"}  # options of `ray job submit` and pip, quoted without their command
HISTORY = {"CHANGELOG.md"}  # quotes old names
SIZE = 6000  # bytes


@cache
def options() -> dict[tuple[str, ...], set[str]]:
    """Return the options of each command and group of commands, by its words."""
    found: dict[tuple[str, ...], set[str]] = {}

    def collect(command, words: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            collect(child, (*words, name))
        found[words] = {option for parameter in command.params for option in parameter.opts} | {"--help"}

    collect(typer.main.get_command(app), ())
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def quoted(page: Path) -> list[str]:
    """Return the lines of a page's code blocks, with continued lines joined, and its inline code."""
    text = page.read_text()
    blocks = [line for _, block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return blocks + re.findall(r"`([^`]+)`", " ".join(FENCED.sub("", text).splitlines()))


def command_of(words: list[str]) -> tuple[tuple[str, ...], list[str]] | None:
    """Return the command and arguments of a shell line; None if it runs no command of this project."""
    for place, word in enumerate(words):
        if word == "flowers-batch":
            rest = words[place + 1 :]
        elif re.fullmatch(r"(\S*/)?jobs/\w+\.py", word):
            rest = [Path(word).stem, *words[place + 1 :]]
        else:
            continue
        if not rest or rest[0].startswith("-"):
            return None
        length = 2 if rest[0] == "weights" else 1
        return tuple(rest[:length]), rest[length:]
    return None


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_first_pages_are_short(name):
    assert len((ROOT / name).read_bytes()) <= SIZE


def test_relative_links_lead_to_files():
    for page in PAGES:
        for target in map("".join, LINK.findall(FENCED.sub("", page.read_text()))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(file), f"{page}: {target}"


def test_quoted_paths_exist():
    for page in PAGES:
        if page.name not in HISTORY:
            paths = PATH.findall(page.read_text())
            assert not [path for path in paths if not (ROOT / path).exists()], page


def test_quoted_commands_and_options_exist():
    every = set().union(*options().values()) | OTHER_TOOLS
    for page in PAGES:
        for line in [] if page.name in HISTORY else quoted(page):
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # not a shell line
                continue
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            if ours := command_of(words):
                command, arguments = ours
                assert command in options(), f"{page}: {line}"
                given &= {word.partition("=")[0] for word in arguments}
                assert given <= options()[command], f"{page}: {line}"
            elif words and words[0].startswith("--"):
                assert given <= every, f"{page}: {line}"


def test_quoted_python_names_are_public():
    public = set(fb.__all__) | {"__version__"}
    for page in PAGES:
        if page.name not in HISTORY:
            assert set(re.findall(r"\bfb\.(\w+)", page.read_text())) <= public, page


def test_quoted_calls_take_the_arguments_they_are_given():
    from tensorflow_vgg import network, utils, vgg16, weights

    modules = {"fb": fb, "network": network, "utils": utils, "vgg16": vgg16, "weights": weights}
    checked = 0
    for page in PAGES:
        for language, block in FENCED.findall(page.read_text()):
            for call in ast.walk(ast.parse(block)) if language == "python" else ():
                match call:
                    case ast.Call(ast.Attribute(ast.Name(module), name), arguments, keywords) if module in modules:
                        function = getattr(modules[module], name)
                        given = {keyword.arg: None for keyword in keywords if keyword.arg}
                        inspect.signature(function).bind(*arguments, **given)
                        checked += 1
    assert checked > 10


def test_faults_name_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()))
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert named and named <= there


def test_decisions_are_listed_and_have_all_parts():
    index = (DECISIONS / "index.md").read_text()
    for page in DECISIONS.glob("*.md"):
        if page.name != "index.md":
            title, *parts = page.read_text().strip().split("\n\n")
            assert f"[{title.removeprefix('# ')}]({page.name})" in index, page.name
            assert [part.split("**")[1] for part in parts] == ["Context.", "Decision.", "Consequences."], page.name
