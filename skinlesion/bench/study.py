"""``python -m skinlesion.bench.study``: train a sweep in slices of minutes, and keep how long.

Where a GPU is lent for minutes each call trains for so long, and the same command goes on.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skinlesion.cli import report_errors, without_plus
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.sweeps.jobs import CONF, ROOT, Sweep, read_sweep
from skinlesion.sweeps.status import JobStatus, report, sweep_status
from skinlesion.runs.directory import RunDirectory

EPILOG = """\
example:
  python -m skinlesion.bench.study table4 --minutes 9.5 seed=0 trainer.max_epochs=60 \\
      callbacks.early_stopping.patience=60 data.root=archive weights=folder

OUT/<device>/studies/table4.json says of each run how far it is, its seconds an epoch, what it was
made with and its metrics. Early stopping may end a run before its last epoch."""
KEPT = ("commit", "gpu", "cpu", "compute", "seconds_per_epoch", "training_seconds", "epochs")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for so long, then write how far each run is."""
    options = _parser().parse_intermixed_args(arguments)
    if options.minutes <= 0:
        raise SkinlesionError(f"--minutes {options.minutes:g}: expected a number above 0")
    overrides = without_plus(options.overrides, CONF)
    sweep = read_sweep(options.sweep, overrides)
    _train(sweep, 60 * options.minutes)
    statuses = sweep_status(sweep)

    from skinlesion.bench.results import folder
    from skinlesion.bench.setting import Setting

    path = folder(Path(options.out), Setting()) / "studies" / f"{sweep.name}.json"
    with replacing(path) as temporary:
        runs = [_run(status) for status in statuses]
        document = {"sweep": sweep.title, "overrides": overrides, "runs": runs}
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(f"\n{report(sweep, statuses)}\n{path}")


def _train(sweep: Sweep, seconds: float) -> None:
    """Run the sweep's command, and stop it as Ctrl-C would when its time is over."""
    command = [sys.executable, str(ROOT / "train.py"), "-cd", str(ROOT / "sweeps")]
    command += ["-cn", sweep.name, "-m", *sweep.overrides]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.send_signal(signal.SIGINT)  # each run keeps its last whole epoch
            process.wait()


def _run(status: JobStatus) -> dict[str, Any]:
    """Return how far a job is, and of a finished one what it was made with and its metrics."""
    found: dict[str, Any] = {
        "choice": dict(status.job.choice),
        "seed": status.job.seed,
        "state": status.state,
        "epochs": status.epochs,
        "training_seconds": round(status.seconds, 1),
        "note": "" if status.state == "done" else status.note,
    }
    if status.state == "done":
        directory = RunDirectory(Path(status.note))
        made_with = directory.read_json("provenance.json")
        found |= {name: made_with.get(name) for name in KEPT}
        found["metrics"] = directory.read_json("metrics.json")["parts"]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.bench.study",
        description="Train a sweep in slices of minutes, and keep how long it took.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", help="a file of sweeps/, without .yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for the sweep itself")
    parser.add_argument("--minutes", type=float, default=9.5, help="of training (default: 9.5)")
    parser.add_argument("--out", default="bench", help="folder of the result (default: bench)")
    return parser


if __name__ == "__main__":
    with report_errors(config_dir=str(CONF), resumes=True):
        main()
