"""``skinlesion tables, report, figures, compare, claims, collect``."""

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Command = Callable[[argparse.Namespace], int | None]

PAPER = [f"table{number}" for number in range(3, 12)]
KEPT = ("history.csv", "metrics.json", "predictions.csv", "provenance.json", "DONE")
STARTED_WITH = """\
What a sweep was started with is repeated here, or its runs are not found:
  python train.py -cd sweeps -cn table4 -m budget=cpu seed=0 machine.runs=elsewhere
  skinlesion {} table4 budget=cpu seed=0 machine.runs=elsewhere"""
WORDS = "and what they were started with"
SWEEPS: dict[str, Any] = {"nargs": "*", "metavar": "SWEEP|key=value"}
IMAGES: dict[str, Any] = {"metavar": "FOLDER", "type": Path, "help": "where the images are"}


def tables(parser: argparse.ArgumentParser) -> Command:
    """Write the tables of sweeps, in every format, and print where they are."""
    parser.epilog = STARTED_WITH.format("tables")
    parser.add_argument("words", help=f"(default: table3 … table11), {WORDS}", **SWEEPS)
    parser.add_argument("--out", type=Path, help="folder (default: tables/ beside the runs)")
    return _tables


def report(parser: argparse.ArgumentParser) -> Command:
    """Write one page of all runs of a folder and the tables that they fill."""
    parser.epilog = STARTED_WITH.format("report")
    parser.add_argument("words", help=f"(default: those with a finished run), {WORDS}", **SWEEPS)
    parser.add_argument("--out", type=Path, help="file (default: report.html beside the runs)")
    parser.add_argument("--data", **IMAGES)
    parser.add_argument("--no-figures", action="store_true", help="leave the figures out")
    return _report


def figures(parser: argparse.ArgumentParser) -> Command:
    """Draw the figures of finished runs into their directories."""
    parser.epilog = "example: skinlesion figures runs/resnet50/1f3a5b7c9d/seed0"
    about = "run directories, or folders of them"
    parser.add_argument("folders", type=Path, metavar="RUN", nargs="+", help=about)
    parser.add_argument("--data", **IMAGES)
    return _figures


def compare(parser: argparse.ArgumentParser) -> Command:
    """Print the differences between two runs."""
    parser.epilog = "example: skinlesion compare runs/resnet50/1f3a5b7c9d runs/resnet50/2e4b6d8f0a"
    about = "a run directory, or a folder of seed0, seed1, … which are paired by seed"
    for name in ("a", "b"):
        parser.add_argument(name, type=Path, metavar=f"RUN_{name.upper()}", help=about)
    parser.add_argument("--part", help="val or test (default: test where there is one)")
    return _compare


def claims(parser: argparse.ArgumentParser) -> Command:
    """Put the paper's conclusions to the test by pairs of runs that differ in one thing."""
    parser.epilog = "example: skinlesion claims runs results/cpu/runs --out claims.md"
    about = "folders of run directories (default: runs)"
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUNS", help=about)
    parser.add_argument("--out", type=Path, help="Markdown file (default: claims.md)")
    return _claims


def collect(parser: argparse.ArgumentParser) -> Command:
    """Copy finished runs without checkpoints, figures, the split and the machine's paths."""
    parser.epilog = "example: skinlesion collect runs results/mine"
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the run directories")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to")
    return _collect


def _tables(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from skinlesion.files import replacing
    from skinlesion.reporting.layout import lay_out, long_csv
    from skinlesion.reporting.render import render
    from skinlesion.reporting.results import Results
    from skinlesion.reporting.tables import build_table
    from skinlesion.sweeps.jobs import read_sweep, split_words

    names, overrides = split_words(options.words)
    sweeps = [read_sweep(name, overrides) for name in names or PAPER]
    results = Results(sweeps[0].runs, sweeps)
    out = options.out or sweeps[0].runs / "tables"
    built = [build_table(sweep, results) for sweep in tqdm(sweeps, "tables", disable=None)]
    layouts = [lay_out(table) for table in built]
    written = {}
    for table, layout in zip(built, layouts, strict=True):
        written[out / f"{table.name}.csv"] = long_csv(table)
        for ending in ("md", "tex"):
            written[out / f"{table.name}.{ending}"] = render(f"table.{ending}", layout=layout)
    written[out / "index.html"] = render("tables.html", layouts=layouts)
    for path, content in written.items():
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    _print_left_out(results.damaged)
    for table in built:
        done = sum(len(row.runs) for row in table.rows)
        left = sum(len(row.missing) for row in table.rows)
        print(f"{out / table.name}.md, .csv, .tex: {done} runs, {left} not run")
    print(out / "index.html")


def _report(options: argparse.Namespace) -> None:
    from skinlesion.files import replacing
    from skinlesion.reporting import report
    from skinlesion.sweeps.jobs import split_words

    names, overrides = split_words(options.words)
    collected = report.collect_report(report.chosen_sweeps(names, overrides), bool(names))
    if not options.no_figures:
        report.add_figures(collected, options.data)
    page = report.report_page(collected)
    out = options.out or collected.folder / "report.html"
    with replacing(out) as path:
        path.write_text(page, encoding="utf-8")
    _print_left_out(collected.left_out)
    runs, tables, size = len(collected.runs), len(collected.tables), len(page) / 1e6
    print(f"{out}: {runs} runs, {tables} tables, {size:.1f} MB")


def _figures(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from skinlesion.errors import SkinlesionError
    from skinlesion.reporting.figures import draw_run_figures
    from skinlesion.reporting.results import one_line
    from skinlesion.runs.directory import RunDirectory

    runs: list[Path] = []
    damaged: dict[Path, str] = {}
    for folder in options.folders:
        done = sorted(path.parent for path in folder.glob("*/*/*/DONE"))
        found = [folder] if (folder / "predictions.csv").exists() else done
        if not found:
            raise SkinlesionError(
                f"{folder} is no finished run and holds none; expected a run directory "
                "(runs/<backbone>/<key>/seed<k>) or the folder of all"
            )
        runs += found
    for run in tqdm(runs, "figures", disable=None if runs[1:] else True):
        try:
            drawn = draw_run_figures(RunDirectory(run), options.data)
        except Exception as error:  # whatever is wrong with one run stops no other
            damaged[run] = one_line(error)
        else:
            print(f"{run / 'figures'}: {len(drawn)} figures")
    _print_left_out(damaged)
    if damaged and len(damaged) == len(runs):
        raise SkinlesionError("no figure is drawn; nothing of a run is lost")


def _compare(options: argparse.Namespace) -> None:
    from skinlesion.reporting.compare import compare, table

    print(table(compare(options.a, options.b, options.part)))


def _claims(options: argparse.Namespace) -> None:
    from skinlesion.errors import SkinlesionError
    from skinlesion.files import replacing
    from skinlesion.reporting.claims import judge
    from skinlesion.reporting.render import render
    from skinlesion.reporting.results import Results
    from skinlesion.text import aligned

    folders = options.folders or [Path("runs")]
    if absent := [str(folder) for folder in folders if not folder.is_dir()]:
        raise SkinlesionError(f"there is no folder {', '.join(absent)}; expected folders of runs.")
    results = [Results(folder) for folder in folders]
    judged = judge([run for found in results for run in found.every_run()])
    out = options.out or Path("claims.md")
    with replacing(out) as temporary:
        page = render("claims.md", claims=judged, folders=[folder.as_posix() for folder in folders])
        temporary.write_text(page, encoding="utf-8")
    for found in results:
        _print_left_out(found.damaged)
    rows = [[claim.claim.claim, claim.claim.audit.verdict, claim.verdict] for claim in judged]
    print(aligned([["claim", "published, audited", "ours"], None, *rows], left=3))
    print(out)


def _collect(options: argparse.Namespace) -> None:
    import yaml
    from tqdm import tqdm

    from skinlesion.errors import SkinlesionError
    from skinlesion.files import replacing
    from skinlesion.reporting.results import Results

    results, copied = Results(options.runs), 0
    runs = [*results.every_run()]
    if not runs and not results.damaged:
        raise SkinlesionError(f"{options.runs} holds no finished run: there is nothing to collect.")
    for run in tqdm(runs, "collecting", disable=None):
        path = run.directory.path
        if absent := [name for name in KEPT if not (path / name).is_file()]:
            results.damaged[path] = f"it has no {', '.join(absent)}"
            continue
        config = run.values | {"weights": Path(run.config.weights).name, "machine": {}}
        copy = options.folder / path.relative_to(options.runs)
        with replacing(copy / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        for name in (*KEPT, *(path.name for path in path.glob("unknown.csv"))):
            with replacing(copy / name) as temporary:
                shutil.copyfile(path / name, temporary)
        copied += 1
    _print_left_out(results.damaged)
    print(f"{options.folder}: {copied} runs")


def _print_left_out(runs: Mapping[Path, str]) -> None:
    for path, why in runs.items():
        print(f"left out: {path}: {why}", file=sys.stderr)
