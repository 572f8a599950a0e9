"""The command `skinlesion` as a person meets it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion.cli import COMMANDS, CONF, as_hydra_reads, main, report_errors
from skinlesion.errors import DISK, SkinlesionError

SLOW = {"torch", "pandas", "numpy", "timm", "matplotlib", "gradio", "pytorch_lightning"}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "importtime", "-m", "skinlesion", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_help_lists_every_command_and_imports_nothing_slow() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"{name} " in done.stdout for name in COMMANDS)
    assert not SLOW & {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_slow(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr[-500:]
    assert f"skinlesion {command}" in done.stdout
    assert not SLOW & {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def test_wrong_input_is_one_message_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "absent.csv"])
    assert str(stop.value.code).startswith("error: absent.csv")


@pytest.mark.parametrize("words", [["predct"], ["predict", "--colour"], []])
def test_a_misspelt_command_is_answered_with_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: skinlesion" in capsys.readouterr().err


def test_words_may_stand_behind_an_option(tmp_path) -> None:
    with pytest.raises(SystemExit, match="there is no sweep table12"):
        main(["tables", "--out", str(tmp_path), "table12", "seed=0"])


def test_sigterm_ends_also_what_does_not_return_to_python() -> None:
    busy = """
import hashlib
from skinlesion import cli
cli.GRACE = 0.1
with cli.report_errors():
    print(flush=True)
    hashlib.pbkdf2_hmac("sha1", b"", b"", 2**30)  # minutes, without the GIL
"""
    command = [sys.executable, "-c", busy]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.terminate()
        _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed) == (143, "stopped\n")


def test_no_handler_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with report_errors():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("code", sorted(DISK))
def test_what_a_disk_refuses_is_one_line(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, report_errors():
        raise OSError(code, os.strerror(code), "some/file")
    assert str(stop.value.code).startswith(f"error: some/file: {os.strerror(code)}. ")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("+attention=none", ["attention=none"]),
        ("logger=null", ["logger=none"]),
        ("augment=null", ["augment=none"]),
        ("debug=null", []),
        ("machine.data=archive (1)", ["machine.data='archive (1)'"]),
        ("machine.data=~/x", [f"machine.data='{Path.home()}/x'"]),
        ("machine.data='quoted already'", ["machine.data='quoted already'"]),
        ("weights=${oc.env:W}", ["weights=${oc.env:W}"]),
        ("backbone=glob(*)", ["backbone=glob(*)"]),
        ("-m", ["-m"]),
    ],
)
def test_a_command_line_need_not_know_hydras_grammar(typed: str, read: list[str]) -> None:
    assert as_hydra_reads([typed], CONF) == read


def test_an_axis_that_needs_a_choice_is_not_left_out() -> None:
    with pytest.raises(SkinlesionError, match="split=null: expected one of lesion, paper"):
        as_hydra_reads(["split=null"], CONF)
