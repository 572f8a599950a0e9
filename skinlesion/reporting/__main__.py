"""``python -m skinlesion.reporting``: tables, a report, figures, status, a comparison of runs."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.sweeps.jobs import CONF

PAPER = [f"table{number}" for number in range(3, 12)]
KEPT = ("history.csv", "metrics.json", "predictions.csv", "provenance.json", "DONE")
EPILOG = """\
What a sweep was started with is said here too, or its runs are not found:
  python train.py -cd sweeps -cn table4 -m budget=cpu seed=0 machine.runs=elsewhere
  python -m skinlesion.reporting tables table4 budget=cpu seed=0 machine.runs=elsewhere"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; wrong input ends in one message and exit code 1."""
    parser = _parser()
    options, further = parser.parse_known_args(arguments)
    # argparse takes no more words after an option.
    if further and (not hasattr(options, "words") or any(w.startswith("-") for w in further)):
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if further:
        options.words += further
    with report_errors(config_dir=str(CONF)):
        options.run(options)


def tables(options: argparse.Namespace) -> None:
    """Write the tables of sweeps, in every format, and print where they are."""
    from skinlesion.reporting.page import tables_page
    from skinlesion.reporting.render import latex, long_csv, markdown
    from skinlesion.reporting.tables import Results, build_table
    from skinlesion.sweeps.jobs import read_sweep

    names, overrides = _apart(options.words)
    sweeps = [read_sweep(name, overrides) for name in names or PAPER]
    results = Results(sweeps)
    out = Path(options.out) if options.out else sweeps[0].runs / "tables"
    built = [build_table(sweep, results) for sweep in tqdm(sweeps, "tables", disable=None)]
    written = {}
    for table in built:
        for ending, text in (("md", markdown), ("csv", long_csv), ("tex", latex)):
            written[out / f"{table.name}.{ending}"] = text(table)
    written[out / "index.html"] = tables_page(built)
    for path, content in written.items():
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    for path, why in results.damaged.items():
        print(f"left out, because damaged: {path}: {why}", file=sys.stderr)
    for table in built:
        done = sum(len(row.runs) for row in table.rows)
        left = sum(len(row.missing) for row in table.rows)
        print(f"{out / table.name}.md, .csv, .tex: {done} runs, {left} not run")
    print(out / "index.html")


def report(options: argparse.Namespace) -> None:
    """Write one page of all runs of a folder and the tables that they fill."""
    from skinlesion.reporting.page import report_page
    from skinlesion.reporting.report import add_figures, chosen_sweeps, collect_report

    names, overrides = _apart(options.words)
    sweeps = chosen_sweeps(names, overrides)
    collected = collect_report(sweeps, every_table=bool(names))
    with ExitStack() as temporary:
        if not options.no_figures:
            data = Path(options.data) if options.data else None
            add_figures(collected, data, temporary)
        page = report_page(collected)
    out = Path(options.out) if options.out else collected.folder / "report.html"
    with replacing(out) as path:
        path.write_text(page, encoding="utf-8")
    for left, why in collected.left_out.items():
        print(f"left out: {left}: {why}", file=sys.stderr)
    runs, tables, size = len(collected.runs), len(collected.tables), len(page) / 1e6
    print(f"{out}: {runs} runs, {tables} tables, {size:.1f} MB")


def figures(options: argparse.Namespace) -> None:
    """Draw the figures of finished runs into their directories."""
    from skinlesion.reporting.figures import draw_run_figures
    from skinlesion.runs.directory import RunDirectory

    runs: list[Path] = []
    for folder in map(Path, options.folders):
        own = [folder] if (folder / "predictions.csv").exists() else []
        found = own or sorted(path.parent for path in folder.glob("*/*/*/DONE"))
        if not found:
            raise SkinlesionError(
                f"{folder} is no finished run and holds none; expected a run directory "
                "(runs/<backbone>/<key>/seed<k>) or the folder of all"
            )
        runs += found
    data = Path(options.data) if options.data else None
    for run in tqdm(runs, "figures", disable=None if runs[1:] else True):
        drawn = draw_run_figures(RunDirectory(run), data)
        print(f"{run / 'figures'}: {len(drawn)} figures")


def status(options: argparse.Namespace) -> None:
    """Print how far each job of a sweep is."""
    from skinlesion.sweeps.jobs import names, read_sweep
    from skinlesion.sweeps.status import report, sweep_status

    chosen, overrides = _apart(options.words)
    if len(chosen) != 1:
        raise SkinlesionError(f"name one sweep; there are {', '.join(names())}.")
    sweep = read_sweep(chosen[0], overrides)
    print(report(sweep, sweep_status(sweep)))


def compare(options: argparse.Namespace) -> None:
    """Print the differences between two runs."""
    from skinlesion.reporting.compare import compare, table

    print(table(compare(Path(options.a), Path(options.b), options.part)))


def collect(options: argparse.Namespace) -> None:
    """Copy finished runs without checkpoints, figures, the split and the machine's paths."""
    from omegaconf import OmegaConf

    from skinlesion.runs.directory import RunDirectory

    runs, out = Path(options.runs), Path(options.folder)
    done = sorted(path.parent for path in runs.glob("*/*/*/DONE"))
    if not done:
        raise SkinlesionError(f"{runs} holds no finished run: there is nothing to collect.")
    for run in tqdm(done, "collecting", disable=None):
        config = RunDirectory(run).config
        config.weights = Path(config.weights).name
        config.machine = {}
        with replacing(out / run.relative_to(runs) / "config.yaml") as temporary:
            temporary.write_text(OmegaConf.to_yaml(config), encoding="utf-8")
        for name in KEPT:
            with replacing(out / run.relative_to(runs) / name) as temporary:
                shutil.copyfile(run / name, temporary)
    print(f"{out}: {len(done)} runs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.reporting",
        description=__doc__.split("``: ")[1] if __doc__ else None,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], about: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    sub = command("tables", tables, "write tables as Markdown, CSV, LaTeX and one HTML page")
    sub.add_argument(
        "words",
        nargs="*",
        metavar="SWEEP|key=value",
        help="sweeps (default: table3 … table11), and what they were started with",
    )
    sub.add_argument("--out", help="folder to write into (default: tables/ beside the runs)")
    sub = command("report", report, "write one HTML page of every run of a folder, with figures")
    sub.add_argument(
        "words",
        nargs="*",
        metavar="SWEEP|key=value",
        help="sweeps (default: all of which a run is finished), and what they were started with",
    )
    sub.add_argument("--out", help="file to write (default: report.html beside the runs)")
    sub.add_argument("--data", metavar="FOLDER", help="where the images are (default: as the run)")
    sub.add_argument("--no-figures", action="store_true", help="leave the figures out")
    sub = command("figures", figures, "draw the figures of finished runs")
    sub.add_argument(
        "folders", nargs="+", metavar="RUN", help="run directories, or folders of them"
    )
    sub.add_argument("--data", metavar="FOLDER", help="where the images are (default: as the run)")
    sub = command("status", status, "print what of a sweep is done, running, cut, failed and left")
    sub.add_argument("words", nargs="+", metavar="SWEEP|key=value", help="one sweep, and overrides")
    sub = command("compare", compare, "compare two runs on the same images")
    for name in ("a", "b"):
        sub.add_argument(
            name,
            metavar=f"RUN_{name.upper()}",
            help="a run directory, or a folder of seed0, seed1, … which are paired by seed",
        )
    sub.add_argument("--part", help="val or test (default: test where there is one)")
    sub = command("collect", collect, "copy finished runs without weights, to be kept or published")
    sub.add_argument("runs", metavar="RUNS", help="folder of the run directories")
    sub.add_argument("folder", metavar="FOLDER", help="where to")
    return parser


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of sweeps, and the overrides."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]


if __name__ == "__main__":
    main()
