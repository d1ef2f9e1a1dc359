"""No name controls the terminal that it is printed on, whoever prints it."""

from __future__ import annotations

import re
import sys
import traceback
import warnings

import pytest
from codes_folder import write_codes
from commands import run

from flowers_batch.cli.app import app
from flowers_batch.errors import RunError
from flowers_batch.pages.report import page
from flowers_batch.progress import Progress, console_reporter
from flowers_batch.text import VisibleStream

HOSTILE = "x\x1b[2J\x9b1m\r\x08\x7f\u202e\u2066\u200b\u2028\u3164\U000e0041"
_CONTROLS = re.compile("[^\n -~\xa1-\xac\xae-\u0377\u2010-\u2027\u2030-\u205f\uff01-\uff5e]")


def assert_harmless(*printed: str) -> None:
    assert not _CONTROLS.findall("".join(printed))
    assert any("u202e" in text for text in printed)


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "{}", "{}"),
        ("shrink", "{}", "{}"),
        ("encode", ".", "out", "--weights", "{}.npy"),
        ("encode", ".", "out", "--precision", "{}"),
        ("encode", ".", "out", "--batch-size", "1", "{}"),
        ("--progress", "{}", "verify", "."),
        ("{}",),
        ("verify", "--{}"),
        ("verify", "{}"),
        ("train", "{}", "model"),
        ("finetune", "{}", "out", "--labels", "folder"),
        ("predict", "{}", "out", "--model", "{}"),
        ("label-issues", "{}"),
        ("suggest", "{}"),
        ("similar", "{}", "photo.jpg"),
        ("duplicates", "{}"),
        ("tag", "{}"),
        ("keywords", "{}"),
        ("export", "{}", "model.onnx"),
        ("organize", "{}", "tree"),
        ("report", "{}"),
        ("review", "{}"),
        ("demo", "--out", "/dev/null/{}"),
        ("weights", "fetch", "--network", "{}"),
        ("weights", "convert", "{}.npy", "b.npy"),
        ("weights", "check", "{}.npy"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_every_command_show_invisible_characters(capsys, tmp_path, monkeypatch, arguments, debug):
    monkeypatch.chdir(tmp_path)
    code, *printed = run(capsys, *["--debug"] * debug, *(each.format(HOSTILE) for each in arguments))
    assert code in (1, 2)
    assert_harmless(*printed)


def test_every_command_is_tried_with_such_names():
    tried = {
        arguments[0]
        for mark in test_errors_of_every_command_show_invisible_characters.pytestmark
        if mark.args[0] == "arguments"
        for arguments in mark.args[1]
    }
    assert tried >= {each.name or each.callback.__name__ for each in app.registered_commands} | {"weights"}


def test_results_show_invisible_characters(capsys, tmp_path):
    codes = write_codes(tmp_path / HOSTILE, [f"red{HOSTILE}", f"green{HOSTILE}"])
    assert_harmless(*run(capsys, "verify", str(codes))[1:])


@pytest.mark.parametrize(
    "error", [RunError(HOSTILE), OSError(5, HOSTILE, HOSTILE), KeyError(HOSTILE), ValueError(HOSTILE)]
)
def test_what_libraries_print_shows_invisible_characters(capsys, monkeypatch, error):
    def report(folder, out, **_):
        print(HOSTILE)
        sys.stderr.writelines([HOSTILE])
        warnings.warn(HOSTILE, stacklevel=1)
        raise error

    monkeypatch.setattr(page, "report", report)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
        try:
            printed = run(capsys, "report", "folder")[1:]
        except (KeyError, ValueError):
            traceback.print_exc()  # as Python does
            printed = capsys.readouterr()
    assert_harmless(*printed)


@pytest.mark.parametrize("style", ["bar", "lines", "json"])
def test_progress_shows_invisible_characters_and_moves_its_bar(capsys, monkeypatch, style):
    monkeypatch.setattr(sys, "stderr", VisibleStream(sys.stderr))
    with console_reporter("encode", style) as reporter:
        reporter.update(Progress(done=1, total=2))
        reporter.message(HOSTILE)
    printed = capsys.readouterr().err
    assert ("\r" in printed) == (style == "bar")
    assert_harmless(re.sub(r"\r|[█▏▎▍▌▋▊▉]", "", printed))
