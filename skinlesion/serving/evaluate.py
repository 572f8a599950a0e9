"""`skinlesion evaluate`: a predictions file, or a run on a test set that it has never seen."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skinlesion.cli import CONF, quick_imports
from skinlesion.data.views import TTA, VIEWS, tta_of
from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.command import show
from skinlesion.files import replacing

CHALLENGE = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
BATCH = 32


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Print the metrics of predictions, part by part; with --on, predict first."""
    parser.epilog = "example: skinlesion evaluate runs/resnet50/1f3a5b7c9d/seed0 --on isic2018_test"
    add = parser.add_argument
    what = "image_id, lesion_id, split, label, a probability column per class; or a run's directory"
    add("predictions", type=Path, metavar="PREDICTIONS.csv", help=what)
    about = "also recall by age, sex, localization, …; of a folder of seeds, all taken together"
    add("--by", type=lambda text: [*dict.fromkeys(text.split(","))], metavar="A,B", help=about)
    about = (
        "also conformal sets: how often they hold the class, and their size; by groups with --by"
    )
    add("--sets", action="store_true", help=about)
    about = "also how sure it is, as trained and after scaling fitted on val, and class by class"
    add("--calibration", action="store_true", help=about)
    about = "what --by reads: image_id and these columns (default: the run's split.csv)"
    add("--table", type=Path, metavar="FILE", help=about)
    about = "print one JSON object, split to metrics, in full precision"
    add("--json", action="store_true", help=about)
    about = "predict a test set, images and table, that the run has never seen, into RUN/on/"
    add("--on", type=Path, metavar="FOLDER", help=about)
    about = "write its probabilities as ISIC 2018 takes them; FOLDER then needs no table"
    add("--submission", type=Path, metavar="FILE", help=about)
    add("--tta", choices=["none", *VIEWS], help=f"predict anew, {TTA}")
    add("--device", default="cpu", help="what predicts: cpu (default), cuda, cuda:1, mps")
    return _run


def _run(options: argparse.Namespace) -> None:
    if options.submission and not options.on:
        raise SkinlesionError("--submission: of which images? Expected --on FOLDER as well.")
    more = options.by or options.sets or options.calibration
    if more and (options.json or options.submission):
        raise SkinlesionError(
            "--by, --sets and --calibration print: expected neither --json nor --submission."
        )
    anew = options.on or options.tta
    seeds = sorted(options.predictions.glob("seed*")) if more and not anew else []
    known: Any = _known(options, [*seeds, options.predictions][0]) if options.by else None
    scored: Path | None = options.predictions
    if anew:
        scored = predict_folder(options) if options.on else predict_again(options)
    if scored and not seeds:
        show(scored, options.json)
    if scored and more:
        from skinlesion.evaluation.conformal import show_sets
        from skinlesion.evaluation.scaling import show_calibration
        from skinlesion.evaluation.subgroups import by_groups
        from skinlesion.runs.predictions import read_predictions

        runs = [read_predictions(path) for path in seeds or [scored]]
        if options.by:
            print(by_groups([run.part(run.reported) for run in runs], known))
        # A folder has no val of its own; a run that is predicted anew has, by the same views.
        fitted = [read_predictions(options.predictions)] if options.on else runs
        if options.sets:
            print(show_sets([*zip(fitted, runs, strict=True)], known))
        if options.calibration:
            print(show_calibration([*zip(fitted, runs, strict=True)]))
    if scored and anew and not options.json:
        print(f"\n{scored}")


def _known(options: argparse.Namespace, run: Path) -> Any:
    """Return what --by names as text, a row for each image by its id."""
    from skinlesion.data.table import join_tables, read_cells

    own = (run if run.is_dir() else run.parent) / "split.csv"
    if not options.table and not (own.exists() and {*options.by} <= {*read_cells(own)}):
        raise SkinlesionError(
            f"--by: not all of {', '.join(options.by)} in {own} (older releases wrote none). "
            "Expected also --table FILE, the metadata table, such as HAM10000_metadata.csv."
        )
    cells, *_ = join_tables([options.table or own], "image_id", options.by)
    return cells.set_index("image_id")[options.by]


def predict_folder(options: argparse.Namespace) -> Path | None:
    """Predict the images of a folder, and return the predictions file if it has their classes."""
    with quick_imports():
        import pandas as pd
        from omegaconf import OmegaConf

        from skinlesion.data.run_images import RunImages
        from skinlesion.data.test_set import open_test_set
        from skinlesion.runs.predictions import write_predictions
        from skinlesion.serving.model import load_run, run_directory

    directory, file = run_directory(options.predictions), options.submission
    model, data = load_run(directory.path, options.device), directory.config.data
    if file and sorted(map(str.upper, model.classes)) != sorted(CHALLENGE):
        found = f"the run's classes are {listing(model.classes, 12)}"
        raise SkinlesionError(f"--submission: {found}; expected {listing(CHALLENGE, 7)}.")
    official = OmegaConf.load(CONF / "split" / "official.yaml").data.test
    forms = [*(data.get("test") or official), {}]  # or as what it was trained on
    archive, table, problems = open_test_set(options.on, data, forms, needs_table=not file)
    split = pd.read_csv(directory.path / "split.csv", dtype=str, keep_default_na=False)
    known = {*split.loc[split["split"] != "test", "image_id"]} & {*table["image_id"]}
    if known:
        problems.append(f"images that trained or selected the run: {listing(sorted(known))}")
    if model.region:
        problems.append(f"the run saw images by their masks (data.region={model.region})")
    if problems:
        raise SkinlesionError(f"{options.on} cannot score {directory.path}: {'; '.join(problems)}")
    answered = _answers(model, RunImages(archive, table.set_index("image_id"), ()), options.tta)
    if file:
        asked = table[["image_id"]].join(answered.rename(columns=str.upper)[CHALLENGE])
        with replacing(file) as path:
            asked.to_csv(path, index=False, header=["image", *CHALLENGE], float_format="%.9g")
    if "dx" not in table:
        return None
    path = _place(directory.path, options.on.resolve().name, model.tta)
    about = table[["image_id", "lesion_id"]].assign(split="test", label=table["dx"])
    write_predictions(about.join(answered), path)
    return path


def predict_again(options: argparse.Namespace) -> Path:
    """Predict a run's own held-out images once more, and return the predictions file."""
    with quick_imports():
        from skinlesion.data.run_images import open_run_images
        from skinlesion.runs.predictions import COLUMNS, read_predictions, write_predictions
        from skinlesion.serving.model import load_run, run_directory

    directory = run_directory(options.predictions)
    model, about = load_run(directory.path, options.device), read_predictions(directory.predictions)
    found = open_run_images(directory.config).only(about.frame["image_id"].tolist())
    answered = _answers(model, found, options.tta)
    path = _place(directory.path, "itself", model.tta)
    write_predictions(about.frame[[*COLUMNS]].join(answered), path)
    return path


def _answers(model: Any, found: Any, tta: str | None) -> Any:
    """Return the probability of each class for the rows of a `RunImages`, in their order."""
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from skinlesion.data.cache import in_threads

    model.tta = tta_of(tta, model.tta)
    ids, metadata = found.table.index.tolist(), model.encoder.encode(found.table)
    images = in_threads(lambda name: model.fitted(found.pixels(name)), ids, "reading", "img")
    batches = [slice(start, start + BATCH) for start in range(0, len(ids), BATCH)]
    begun = time.perf_counter()
    bar = tqdm(batches, "predicting", unit="batch", disable=None)
    answers = [model.answers(np.stack(images[of]), metadata[of]) for of in bar]
    if model.tta:
        seconds = time.perf_counter() - begun
        what = f"tta={model.tta}: {VIEWS[model.tta]} views of {len(ids):,} images"
        print(f"{what} in {seconds:.1f} s", file=sys.stderr)
    return pd.DataFrame(np.concatenate(answers), columns=[*model.classes])


def _place(run: Path, name: str, tta: str | None) -> Path:
    return run / "on" / f"{name}{f'-{tta}' if tta else ''}.csv"
