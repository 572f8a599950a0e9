"""The command `skinlesion`, and errors as a person at a terminal wants them.

A command is a function that adds its options to a parser and returns what runs them. Its module is
imported only once the command is chosen, so that --help answers at once.
"""

import argparse
import difflib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from skinlesion.errors import SkinlesionError, disk_problem, problems

Run = Callable[[argparse.Namespace], int | None]  # the exit code; None for 0
Command = Callable[[argparse.ArgumentParser], Run]

CONF = Path(__file__).parents[1] / "conf"
INTERRUPTED, TERMINATED = 130, 143  # the shell's exit codes for Ctrl-C and SIGTERM
GRACE = 4.0  # seconds after SIGTERM in which a step at hand may end
OPTIONAL = ("experiment", "budget", "debug")  # axes without a choice unless one is named
PATHS = ("machine.data", "machine.test", "machine.runs", "machine.cache", "weights")
COMMANDS = {
    "predict": ("classify images with a trained model", "serving.commands:predict"),
    "explain": ("show where a trained model looks", "serving.commands:explain"),
    "export": ("turn a run into files to carry away", "serving.commands:export"),
    "app": ("show a trained model in the browser", "serving.commands:app"),
    "evaluate": ("print a run's metrics, or score it elsewhere", "serving.evaluate:command"),
    "average": ("write several runs as one, by their mean", "evaluation.command:average_command"),
    "compare": ("compare two runs on the same images", "reporting.commands:compare"),
    "tables": ("write the paper's tables, or a sweep's", "reporting.commands:tables"),
    "report": ("write one page of every run", "reporting.commands:report"),
    "figures": ("draw the figures of finished runs", "reporting.commands:figures"),
    "claims": ("put the paper's conclusions to the test", "reporting.commands:claims"),
    "status": ("say how far a sweep is", "sweeps.status:command"),
    "collect": ("copy finished runs without weights", "reporting.commands:collect"),
    "data": ("fetch HAM10000, draw the demo, describe data of your own", "data.commands:command"),
    "ledger": ("count every parameter against Keras'", "fidelity.command:ledger"),
    "parity": ("compare with Keras at every cut", "fidelity.command:parity"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `skinlesion COMMAND …`; return its exit code."""
    words = sys.argv[1:] if arguments is None else [*arguments]
    parser = argparse.ArgumentParser(
        prog="skinlesion",
        description="Use and report what train.py trained.",
        epilog="skinlesion COMMAND --help says more. Training: python train.py --help",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    with report_errors(config_dir=str(CONF)):
        for name, (about, place) in COMMANDS.items():
            sub = commands.add_parser(
                name,
                help=about,
                description=f"{about[0].upper()}{about[1:]}.",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            if name == chosen:
                module, function = place.split(":")
                command: Command = getattr(import_module(f"skinlesion.{module}"), function)
                sub.set_defaults(run=command(sub))
        options, further = parser.parse_known_args(words)
        # argparse takes no more words after an option.
        if further and (not hasattr(options, "words") or any(w[0] == "-" for w in further)):
            parser.error(f"unrecognized arguments: {' '.join(further)}")
        if further:
            options.words += further
        return options.run(options) or 0


def _version() -> str:
    try:
        return version("skinlesion")
    except PackageNotFoundError:  # run where it lies, as on a GPU without a network
        return "not installed"


@contextmanager
def report_errors(config_dir: str | None = None, resumes: bool = False) -> Iterator[None]:
    """Print wrong input as one message and exit with code 1; let faults of the program through.

    With the Hydra config folder beside the running script, what exists is named when an override is
    misspelt. A command that `resumes` goes on where Ctrl-C cut it.
    """
    # Otherwise Hydra prints the exception itself and exits.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    stopped = "stopped" + ("; the same command goes on where it was cut" if resumes else "")
    try:
        with _sigterm_as_ctrl_c(stopped):
            yield
    except SkinlesionError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(stopped, file=sys.stderr)
        sys.exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)
    except Exception as error:
        message = disk_problem(error) or _config_message(error, config_dir)
        if message is None:
            raise
        sys.exit(f"error: {message}")


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever ends well on Ctrl-C does so on this."""


@contextmanager
def _sigterm_as_ctrl_c(message: str) -> Iterator[None]:
    """Raise Terminated on SIGTERM; leave with the message where a step at hand outlasts GRACE.

    Python sees a signal only between two of its own instructions, and a backward pass of a large
    network takes longer. Leaving is safe at any moment: files are written whole or not at all.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield  # somebody handles it already
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    def watch() -> None:
        while received := os.read(reader, 64):
            if signal.SIGTERM in received and not ended.wait(GRACE):
                print(message, file=sys.stderr, flush=True)
                os._exit(TERMINATED)
        os.close(reader)

    ended = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, stop)
    others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(others)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)  # which ends the watch


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without the garbage collector, which afterwards passes over what was imported.

    It would look through the thousand modules of torch time and again, and find nothing: a third of
    the time that they take to import, and a second at the end of the program.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:  # or a sweep's next job would freeze what the last one left
            gc.freeze()
        gc.enable()


def as_hydra_reads(arguments: Sequence[str], config_dir: Path) -> list[str]:
    """Return the command line as Hydra's grammar has it, which nobody should have to know.

    Hydra wants `+axis=choice` for an axis that has no default and refuses it for one that has;
    every axis here, a folder of the config's, has one, if only null. It takes no null for a choice,
    and paths with spaces, parentheses or `~` only in quotes. A SkinlesionError if an axis that
    needs a choice is to have none.
    """
    read = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        axis = name.lstrip("+")
        if equals and (config_dir / axis).is_dir() and axis != "hydra":
            name = axis
            choices = sorted(path.stem for path in (config_dir / axis).glob("*.yaml"))
            if value == "null" and axis in OPTIONAL:
                continue
            if value == "null" and "none" not in choices:
                raise SkinlesionError(f"{axis}=null: expected one of {', '.join(choices)}.")
            value = "none" if value == "null" else value
        elif name in PATHS and re.match(r"~|[^'\"$]*[ (]", value):
            value = f"'{os.path.expanduser(value)}'"
        read.append(f"{name}{equals}{value}")
    return read


def _config_message(error: Exception, config_dir: str | None) -> str | None:
    """Return Hydra's and OmegaConf's complaints about the config as text; None for other errors."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException
    from pydantic import ValidationError

    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    if isinstance(error, InstantiationException) and (cause := error.__cause__) is not None:
        text = str(error)
        found = re.search(r"full_key: (.+)", text) or re.search(r"target '(.+?)'", text)
        key = found[1] if found else text
        if isinstance(cause, ValidationError):
            return problems(cause, object, key)
        return f"{key}: {cause}"
    message = str(error).split("\nConfig search path:")[0]
    if config_dir and (
        match := re.search(r"Could not (?:override|append to config\.?) '([^']+)'", message)
    ):
        return _hint(match[1], Path(sys.argv[0]).resolve().parent / config_dir)
    return message


def _hint(key: str, config_dir: Path) -> str:
    """Say what exists near a misspelt key."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    groups = [path.name for path in config_dir.iterdir() if path.is_dir() and path.name != "hydra"]
    # What exists depends on what else was chosen.
    chosen = [argument for argument in sys.argv[1:] if argument.split("=")[0] in groups]
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            config = compose("config", chosen)
        except Exception:  # a choice of a sweep, or a wrong one, which has its own message
            config = compose("config")
    keys = list(dict.fromkeys([*_flatten(OmegaConf.to_container(config)), *groups]))
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    prefix = key.rpartition(".")[0]
    beside = sorted(k for k in keys if k.rpartition(".")[0] == prefix)
    lines = [f"there is no '{key}' in the config."]
    if near:
        lines.append(f"Did you mean: {', '.join(near)}?")
    if beside:
        lines.append(f"There are: {', '.join(beside)}")
    return "\n  ".join([*lines, "python train.py --help shows every choice and value."])


def _flatten(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
