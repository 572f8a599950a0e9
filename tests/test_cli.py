"""The command `skinlesion` as a person meets it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion.cli import COMMANDS, CONF, as_hydra_reads, main, report_errors
from skinlesion.errors import DISK, SkinlesionError


def test_no_help_imports_anything_slow():
    program = """
import contextlib
from skinlesion.cli import COMMANDS, main
for words in ([], *([name] for name in COMMANDS)):
    with contextlib.suppress(SystemExit):
        main([*words, "--help"])
"""
    command = [sys.executable, "-X", "importtime", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert all(f"usage: skinlesion {name} " in done.stdout for name in COMMANDS)
    assert all(about in done.stdout for about, _ in COMMANDS.values())
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    slow = {"torch", "pandas", "numpy", "timm", "matplotlib", "gradio", "jinja2", "hydra"}
    assert not imported & slow


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate absent.csv", "^error: absent.csv"),
        # Words may stand behind an option.
        ("tables --out x table12 seed=0", "no sweep table12; there are ablation, augmentation"),
    ],
)
def test_wrong_input_is_one_message(words, message):
    with pytest.raises(SystemExit, match=message):
        main(words.split())


@pytest.mark.parametrize("words", [["predct"], ["predict", "--colour"], []])
def test_a_misspelt_command_is_answered_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: skinlesion" in capsys.readouterr().err


def test_sigterm_ends_also_what_does_not_return_to_python():
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


def test_no_handler_is_left_behind():
    before = signal.getsignal(signal.SIGTERM)
    with report_errors():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("code", sorted(DISK))
def test_what_a_disk_refuses_is_one_line(code, capsys):
    with pytest.raises(SystemExit) as stop, report_errors():
        raise OSError(code, os.strerror(code), "some/file")
    assert str(stop.value.code).startswith(f"error: some/file: {os.strerror(code)}. ")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("+attention=none", ["attention=none"]),
        ("+experiment=as_released", ["experiment=as_released"]),
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
def test_a_command_line_need_not_know_hydras_grammar(typed, read):
    assert as_hydra_reads([typed], CONF) == read


def test_an_axis_that_needs_a_choice_is_not_left_out():
    with pytest.raises(
        SkinlesionError, match="split=null: expected one of lesion, official, paper"
    ):
        as_hydra_reads(["split=null"], CONF)
