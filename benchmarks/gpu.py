"""``make gpu``: test, measure and train on a GPU that is lent for minutes, and carry it all home.

The work is done by pytest, benchmarks/ and train.py, each of which goes on where it was stopped.
This file imports nothing that Python does not bring, for a bundle may have to be unpacked first.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.__main__ import MEASUREMENTS
from benchmarks.bundle import unpack
from skinlesion.cli import Terminated, report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.text import counted, number

HERE = Path(__file__).parents[1]
RUNS = Path("runs/gpu")  # apart from other runs, as all that is there is carried home
RESERVE = 30  # seconds for the summary
SHORTEST = 20  # seconds: in less, nothing is begun
EPOCHS = ("trainer.max_epochs=60", "callbacks.early_stopping.patience=60")
# The first seed by both protocols, then the next.
TABLE4 = [(f"seed={seed}", f"split={split}") for seed in range(3) for split in ("paper", "lesion")]


def main() -> int:
    """Test, measure and train, for some minutes; the same command goes on."""
    options = _parser().parse_args()
    deadline = time.monotonic() + 60 * options.minutes - RESERVE
    if options.bundle:
        unpack(options.bundle)
    machine = probe()
    if options.device != "cpu" and not machine["gpu"]:
        raise SkinlesionError("this Python sees no GPU (CUDA); DEVICE=cpu tries it without")
    work = Work(options, machine, deadline)
    parts = (work.tests, work.benchmarks, work.table4)
    try:
        for i, part in enumerate(parts):  # what is left, in equal shares
            part(time.monotonic() + (deadline - time.monotonic()) / (len(parts) - i))
    finally:
        work.carry_home()
    return 1 if work.failed else 0


def probe() -> dict[str, Any]:
    """Return the provenance of what is made here: in a process that leaves the GPU alone after."""
    code = "import json, timm, torchvision, pytorch_lightning\n"
    code += "from skinlesion.runs.provenance import provenance\nprint(json.dumps(provenance()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or "no message").splitlines()[-1]
        hint = "BUNDLE=folder, written by make gpu-bundle, has what is missing"
        raise SkinlesionError(f"{sys.executable} cannot be used: {said}; {hint}.")
    return json.loads(done.stdout.splitlines()[-1])


class Work:
    """The parts of a call, what each came to (`said`), and what is carried home."""

    def __init__(
        self, options: argparse.Namespace, machine: dict[str, Any], deadline: float
    ) -> None:
        self.out, self.machine, self.deadline = options.out, machine, deadline
        self.commit = (machine["commit"] or "unknown") + (", changed" if machine["dirty"] else "")
        self.said: dict[str, str] = {}
        self.failed = False
        data = chosen(options.data, options.bundle, "data", "data/ham10000")
        self.weights = chosen(options.weights, options.bundle, "weights", "weights")
        if not data.is_dir():
            raise SkinlesionError(f"there is no folder {data}: DATA=folder of HAM10000's zips")
        self.backbones = options.backbones
        common = (f"machine.device={options.device}", f"machine.data={data}")
        self.common, self.typed = common, options.words

    def tests(self, until: float) -> None:
        """Run the files of tests/gpu that have not passed at this commit."""
        if find_spec("pytest") is None:
            self.said["tests"] = "not run, for pytest is missing"
            print(f"tests: {self.said['tests']}")
            return
        files, broken = sorted((HERE / "tests/gpu").glob("test_*.py")), []
        for file in files:
            result = self.out / "tests" / f"{file.stem}.xml"
            if self._stands(result) and not troubles(result) and not self.machine["dirty"]:
                continue
            words = ("-m", "pytest", str(file), f"--junitxml={result}")
            code = self.call("tests", (*words, "-o", f"junit_suite_name={self.commit}"), until)
            if code is None:
                break
            broken += [file.name] if code not in (0, 1) else []  # 1: some tests failed
        found = [path for path in self.out.glob("tests/*.xml") if self._stands(path)]
        passed = sum(len([case for case in cases(path) if not len(case)]) for path in found)
        skipped = sum(case.find("skipped") is not None for path in found for case in cases(path))
        failed = [*broken, *(name for path in found for name in troubles(path))]
        self.failed |= bool(failed)
        self.said["tests"] = (
            f"{len(found)} of {counted(len(files), 'file')}: {passed} passed, {skipped} skipped, "
            f"failed: {', '.join(failed) or 'none'}"
        )

    def benchmarks(self, until: float) -> None:
        """Measure what has not been measured at this commit."""
        options = ["--backbones", self.backbones] if self.backbones else []
        given = ["--out", str(self.out / "bench"), *options, *self.common, *self.typed]
        minutes = str(max(until - time.monotonic(), 0) / 60)

        def measured(*names: str) -> int | None:
            words = ("-m", "benchmarks", *names, "--minutes", minutes, *given)
            # One that was begun in time may end, or one that takes long would never be measured.
            return self.call("benchmarks", words, min(until + 60, self.deadline))

        code = measured(*MEASUREMENTS)
        failed = []
        if code:  # so that one that fails does not keep the others from being measured
            failed = [name for name in MEASUREMENTS if measured(name)]
        there = len([*self.out.glob("bench/*/*.json")])
        self.failed |= bool(failed)
        self.said["benchmarks"] = f"{there} measured, failed: {', '.join(failed) or 'none'}"

    def table4(self, until: float) -> None:
        """Train the rows of Table 4, by both protocols."""
        if not self.weights.exists():
            self.said["Table 4"] = f"not trained, for there is no {self.weights}: WEIGHTS=folder"
            print(f"Table 4: {self.said['Table 4']}")
            return
        for some in TABLE4:
            words = ("train.py", "-cd", "sweeps", "-cn", "table4", "-m", *self.job(*some))
            if self.call("table4", words, until) is None:
                break
        done = len([*RUNS.glob("*/*/*/DONE")])
        self.said["Table 4"] = f"{counted(done, 'run')} finished"

    def job(self, *words: str) -> list[str]:
        """Return the overrides of training, of which what was typed comes last and wins."""
        if self.backbones:
            rows = ",".join(f"md_{name}" for name in self.backbones.split(","))
            words = (*words, f"experiment={rows}")
        own = (*self.common, f"machine.runs={RUNS}", f"weights={self.weights}", *EPOCHS)
        return [*{word.partition("=")[0]: word for word in (*own, *words, *self.typed)}.values()]

    def call(self, log: str, words: Sequence[str], until: float) -> int | None:
        """Run Python with these words, to the screen and a log; None: the time is over.

        Whatever runs keeps what it has on SIGTERM, and is given ten seconds to do so.
        """
        if until - time.monotonic() < SHORTEST:
            return None
        path = self.out / "log" / f"{log}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"\n$ python {' '.join(words)}", flush=True)
        child = subprocess.Popen(
            [sys.executable, "-u", *words],
            cwd=HERE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        tee = subprocess.Popen(["tee", "-ia", str(path)], stdin=child.stdout)
        try:
            return child.wait(until - time.monotonic())
        except subprocess.TimeoutExpired:
            print("the time of this part is over", flush=True)
            return None
        except KeyboardInterrupt as stop:
            if not isinstance(stop, Terminated):  # Ctrl-C reaches the child as well
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10)
            raise
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
            child.stdout.close()
            with suppress(subprocess.TimeoutExpired):
                tee.wait(5)  # what a child that was killed has started may write for ever
            tee.terminate()

    def carry_home(self) -> None:
        """Write tables and summary, and copy the runs without their weights."""
        words = self.job()
        if any(RUNS.glob("*/*/*/DONE")):
            self._skinlesion("collect", str(RUNS), str(self.out / "runs"))
            self._skinlesion(
                "tables", "table4", "leakage", *words, "--out", str(self.out / "tables")
            )
        status = self._skinlesion("status", "table4", *self.job("seed=0"))
        path = self.out / "summary.md"
        text = "\n".join(self.summary(status))
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        files = [path for path in self.out.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e3
        print(f"\n{text}\n{path}\n{self.out.resolve()}: to carry home, {size:,.0f} kB", flush=True)

    def summary(self, status: str) -> Iterator[str]:
        """Yield the lines of the page."""
        it = self.machine
        yield f"# {it['gpu'] or it['cpu']}\n"
        yield f"Commit {self.commit}, torch {it['packages']['torch']}, CUDA {it['cuda']},"
        yield f"Python {it['python']}, {counted(it['cores'], 'core')}.\n"
        yield from (f"- {part}: {said}" for part, said in self.said.items())
        for folder in sorted(path.parent for path in self.out.glob("bench/*/bench.md")):
            yield f"\n## {folder.name}\n\nMore in {folder.relative_to(self.out)}/bench.md.\n"
            yield from figures(folder)
        if (table := self.out / "tables/leakage.md").exists():
            yield f"\n{table.read_text(encoding='utf-8')}"
        if status:
            yield f"\n## How far Table 4 is, seed 0\n\n```\n{status.rstrip()}\n```"

    def _stands(self, result: Path) -> bool:
        """Return whether tests were run at this commit, which is the name of their suite."""
        if not result.exists():
            return False
        return next(ElementTree.parse(result).iter("testsuite")).get("name") == self.commit

    def _skinlesion(self, *words: str) -> str:
        command = [sys.executable, "-m", "skinlesion", *words]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        print(done.stderr, end="", file=sys.stderr)
        return done.stdout


def chosen(given: Path | None, bundle: Path | None, name: str, usual: str) -> Path:
    """Return the folder that was named, else the bundle's, else the usual one."""
    if given is None and bundle and (bundle / name).is_dir():
        given = bundle / name
    return (given or Path(usual)).absolute()


def cases(result: Path) -> list[ElementTree.Element]:
    """Return the tests of a file as pytest writes it (JUnit); one that passed holds nothing."""
    return [*ElementTree.parse(result).iter("testcase")]


def troubles(result: Path) -> list[str]:
    """Return the names of the tests that failed or could not be run."""
    wrong = ("failure", "error")
    return [case.get("name", "?") for case in cases(result) if {c.tag for c in case} & {*wrong}]


def figures(folder: Path) -> Iterator[str]:
    """Yield a table of what is asked about most, a row a backbone."""
    columns = {
        "training ÷ step": ("pipeline", "augment", "none", "ratio"),
        "training ÷ baseline": ("baseline", "what", "training", "ratio"),
        "epoch, s": ("epochs", "", None, "epoch with validation, s"),
        "least step ÷ measured": ("limits", "", None, "at least ÷ measured"),
    }
    backbones = sorted({path.stem.partition("-")[2] for path in folder.glob("*.json")})
    yield f"| backbone | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}"
    for backbone in backbones:
        cells = []
        for measurement, key, value, wanted in columns.values():
            path = folder / f"{measurement}-{backbone}.json"
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
            row = next((row for row in rows if row.get(key) == value), {})
            cells.append(row.get("problem") or number(row.get(wanted)))
        yield f"| {backbone} | {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    about = __doc__.partition(": ")[2]
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=about, formatter_class=raw
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="key=value", help="overrides of the config")
    add("--minutes", type=float, default=9, help="of this call (default: 9)")
    add("--data", type=Path, help="folder of HAM10000 (default: the bundle's, or data/ham10000)")
    add("--weights", type=Path, help="folder of ImageNet weights (default: the bundle's)")
    add("--bundle", type=Path, help="what this machine lacks, as make gpu-bundle wrote it")
    add("--device", default="gpu", help="gpu, or cpu to try it (default: gpu)")
    add("--backbones", metavar="A,B,…", help="which are measured and trained (default: all)")
    add("--out", type=Path, default=Path("gpu"), help="folder of what comes out (default: gpu)")
    return parser


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


if __name__ == "__main__":
    # Handled here, or report_errors would leave before the summary is written.
    signal.signal(signal.SIGTERM, _terminate)
    with report_errors(resumes=True):
        sys.exit(main())
