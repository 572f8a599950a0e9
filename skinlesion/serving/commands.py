"""``skinlesion predict, explain, export, app``: a trained model in use."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.cli import Terminated, quick_imports
from skinlesion.data.views import TTA, VIEWS, tta_of
from skinlesion.errors import SkinlesionError, listing
from skinlesion.serving.export import FORMATS, USUAL, choose

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    import numpy as np

    from skinlesion.serving.predictor import Prediction, Predictor

Run = Callable[[argparse.Namespace], int | None]

PREDICT = """\
examples:
  skinlesion predict runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45 --sex male
  skinlesion predict model.safetensors photos/ --csv photos.csv --json > answers.jsonl

The probabilities are calibrated (their temperature was fitted on the run's validation images) and,
beside them, raw. An image that cannot be read is one line of the output; the exit code is then 1.
It is research software and no medical device."""
EXPLAIN = """\
examples:
  skinlesion explain runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45
  skinlesion explain model.safetensors photos/ --csv photos.csv --class mel --out maps
  skinlesion explain RUN photos/ --check                  # do they show what was learnt?

Each image gives a figure, <image>_attention.png and .pdf: the attention maps, their sum over the
image, and Grad-CAM for the predicted class or the one named. Both show where a network looks, not
why, nor whether it is right. The panel of a run's own images, by class, is one of its figures:
skinlesion figures RUN.

--check explains each image again, with more and more layers as they were before training, and by
the run's other seeds, and writes explain_check.csv, .png and .pdf: an explanation that stays alike
when the network has learnt nothing does not show what it learnt (Young et al. 2019)."""
EXPORT = f"""\
formats:
{chr(10).join(f"  {kind:<12} {known.file:<18} {known.about}" for kind, known in FORMATS.items())}

Beside them, always: README.md, the model card, and export.json, all that was measured. The folder
then holds what was asked for this time; other formats of an earlier time are removed.

Every file but int8 is checked to compute what the network does, on held-out images of the run's
data; what eight bits cost is measured on all of them. Where the data is not at hand there is no
int8, and the check is on noise.

examples:
  skinlesion export runs/mobilenet_v2/6c516296a2/seed0
  skinlesion export runs/*/*/seed0 --out exported --formats onnx,int8
  skinlesion export RUN --data ../ham10000 --phone"""
APP = """\
examples:
  skinlesion app runs/mobilenet_v2/6c516296a2/seed0
  skinlesion app model.safetensors --port 0 --open

It needs Gradio: pip install 'skinlesion[app]'. Images stay on this machine; an uploaded file is
deleted as soon as it is read. Ctrl-C stops it. It is research software and no medical device."""
SHORT = ("age", "sex", "localization")
NAME_COLUMNS = ("image", "image_id", "file", "filename")
BATCH = 32
HEAD = (
    *("run", "file", "MB", "parameters", "input, px", "latency, ms"),
    *("accuracy", "balanced accuracy", "measured on"),
)


def predict(parser: argparse.ArgumentParser) -> Run:
    """Print a probability for each class."""
    parser.description = (
        "Print what a trained model says about images: a probability for each class."
    )
    parser.epilog = PREDICT
    _add_model(parser)
    _add_images(parser)
    parser.add_argument(
        "--json", action="store_true", help="a JSON object for each image, a line each"
    )
    parser.add_argument("--tta", choices=["none", *VIEWS], help=TTA)
    about = (
        "say of which answers the model is not sure enough: of the surer, 5 %% were wrong on val"
    )
    parser.add_argument("--sure", action="store_true", help=about)
    return _predict


def explain(parser: argparse.ArgumentParser) -> Run:
    """Draw where a trained model looks."""
    parser.description = "Draw where a trained model looks: soft-attention maps beside Grad-CAM."
    parser.epilog = EXPLAIN
    _add_model(parser)
    _add_images(parser)
    whose = "whose Grad-CAM (default: the predicted)"
    parser.add_argument("--class", dest="target", metavar="CLASS", help=whose)
    add = parser.add_argument
    which = "some of soft-attention, grad-cam, kernel-shap (default: the first two)"
    add("--method", metavar="A,B", help=which)
    often = "images with hidden parts that Kernel SHAP asks about (default: 2500)"
    add("--samples", type=int, default=2500, metavar="N", help=often)
    trust = "instead: how far they can be trusted; of a run, also against its other seeds"
    add("--check", action="store_true", help=trust)
    where = "for the figures (default: .)"
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help=where)
    return _explain


def export(parser: argparse.ArgumentParser) -> Run:
    """Export runs."""
    parser.description = (
        "Turn trained runs into files to carry away, and compare them in one table."
    )
    parser.epilog = EXPORT
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="directories, runs/<backbone>/<key>/seed<k>")
    into = "make a folder for each run in it, and table.md (default: export/ in the run)"
    add("--out", type=Path, metavar="FOLDER", help=into)
    choices = f"some of {', '.join(FORMATS)} (default: {USUAL})"
    add("--formats", default=USUAL, metavar="A,B", help=choices)
    add("--phone", action="store_true", help="the phone's too (pip install skinlesion[phone])")
    where = "where the runs' images are (default: where they had them)"
    add("--data", type=Path, metavar="FOLDER", help=where)
    often = "how often each file is timed (default: 50; 0: not at all)"
    add("--repeats", type=int, default=50, metavar="N", help=often)
    return _export


def app(parser: argparse.ArgumentParser) -> Run:
    """Show a trained model in the browser."""
    parser.epilog = APP
    _add_model(parser)
    address = "address to listen on (default: 127.0.0.1, this machine only)"
    parser.add_argument("--host", default="127.0.0.1", help=address)
    parser.add_argument("--port", type=int, default=7860, help="default: 7860; 0 takes a free one")
    parser.add_argument("--open", action="store_true", help="open the browser")
    return _app


def _add_model(parser: argparse.ArgumentParser) -> None:
    about = "a run directory, or an exported .safetensors (predict: or .onnx)"
    parser.add_argument("model", type=Path, metavar="RUN_OR_FILE", help=about)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")


def _add_images(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP files, or folders")
    add("--age", help="of the patient, in years")
    add("--sex", help="female, male or unknown")
    add("--localization", help="on the body, such as back or 'lower extremity'")
    other = "any other property of a model of your own data; may be repeated"
    add("--set", "-s", action="append", default=[], metavar="NAME=VALUE", help=other)
    table = (
        "metadata of each image: a column image (or image_id, file, filename), with or without "
        "ending, and one for each property; blank is unknown"
    )
    add("--csv", type=Path, metavar="FILE", help=table)


def _predict(options: argparse.Namespace) -> int:
    """Predict and print; return 1 if an image could not be read."""
    from tqdm import tqdm

    model, images, rows = _open_all(options)
    model.tta = tta_of(options.tta, model.tta)
    if options.sure and model.sure is None:
        raise SkinlesionError(f"--sure: {options.model} is of a release that fitted no threshold.")
    views = f", the mean of {VIEWS[model.tta]} views each" if model.tta else ""
    print(
        f"{options.model}: {model.description['network']['backbone']['name']}, reads "
        f"{', '.join(model.properties) or 'no metadata'}; temperature {model.temperature:.2f}"
        f"{views}. Research software, no medical device.",
        file=sys.stderr,
    )
    longest = max(map(len, model.classes))
    first = f"{{:<{min(max(5, *(len(path.name) for path in images)), 40)}}}  "
    line = f"{first}{{:<{max(longest, 9)}}}  {{:<10}}"
    line += f"{{:>{max(longest, 6) + 1}}}" * len(model.classes)
    if not options.json:
        head = line.format("image", "predicted", "", *model.classes)
        print(f"{head}\n{'-' * len(head)}")
    broken = 0
    with tqdm(total=len(images), unit="img", disable=None) as bar:
        for path, answer in _predictions(model, images, rows):
            broken += isinstance(answer, str)
            if options.json:
                text = json.dumps({"image": str(path)} | _as_dict(answer, model.tta, options.sure))
            elif isinstance(answer, str):
                text = f"{first.format(path.name)}error: {answer}"
            else:
                calibrated, raw = (
                    [f"{p:.4f}" for p in values.values()]
                    for values in (answer.probabilities, answer.raw)
                )
                text = line.format(path.name, answer.label, "calibrated", *calibrated)
                text += f"   without {', '.join(answer.missing)}" if answer.missing else ""
                text += "   not sure enough" if options.sure and not answer.sure else ""
                text += f"\n{line.format('', '', 'raw', *raw)}"
            # Through tqdm, or bar and lines would mix on a terminal.
            bar.write(text, file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    if broken:
        print(f"{broken} of {len(images)} images could not be read", file=sys.stderr)
    return int(broken > 0)


def _as_dict(answer: "Prediction | str", tta: str | None, sure: bool) -> dict[str, Any]:
    if isinstance(answer, str):
        return {"error": answer}
    found = {"predicted": answer.label, "probabilities": answer.probabilities, "raw": answer.raw}
    found |= {"missing": answer.missing} | ({"tta": tta} if tta else {})
    return found | ({"sure": answer.sure} if sure else {})


def _predictions(
    model: "Predictor", images: Sequence[Path], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Path, "Prediction | str"]]:
    """Yield each image with its prediction, or with why it cannot be read, in order."""
    import numpy as np

    from skinlesion.data.pixels import read_image

    def fitted(path: Path) -> "np.ndarray | str":
        try:
            return model.fitted(read_image(path))
        except SkinlesionError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BATCH):
            answers: list[Any] = [*pool.map(fitted, images[start : start + BATCH])]
            whole = [i for i, image in enumerate(answers) if not isinstance(image, str)]
            if whole:
                batch = np.stack([answers[i] for i in whole])  # (B, S, S, 3)
                found = model.predict_batch(batch, [rows[start + i] for i in whole])
                for i, prediction in zip(whole, found, strict=True):
                    answers[i] = prediction
            yield from zip(images[start : start + BATCH], answers, strict=True)


def _explain(options: argparse.Namespace) -> int:
    """Explain and draw; return 1 if an image could not be read."""
    _needs_torch(options.model, "explain")
    if options.samples < 1:
        raise SkinlesionError(f"--samples {options.samples}: expected 1 or more.")
    model, images, rows = _open_all(options)

    from tqdm import tqdm

    from skinlesion.reporting.figures.gallery import explanation_figure
    from skinlesion.reporting.figures.style import save
    from skinlesion.serving.attention import explain as explained
    from skinlesion.serving.saliency import METHODS

    attends, usual = hasattr(model.network.attention, "maps"), [*METHODS][:2]
    methods = [*dict.fromkeys(options.method.split(","))] if options.method else usual
    if unknown := [name for name in methods if name not in METHODS]:
        raise SkinlesionError(
            f"--method {listing(unknown)}: expected some of {', '.join(METHODS)}."
        )
    if options.method and "soft-attention" in methods and not attends:
        raise SkinlesionError("--method soft-attention: this network has no soft attention.")
    if options.check:
        every = [name for name in METHODS if attends or name != "soft-attention"]
        return _check(options, model, images, rows, methods if options.method else every)
    samples = options.samples if "kernel-shap" in methods else 0
    done = 0
    for path, image, row in _whole(images, rows, "explaining"):
        explanation = explained(model, image, row, options.target, samples)
        figure = explanation_figure(explanation, path.name, methods)
        out = save(figure, options.out / f"{path.stem}_attention.png")
        tqdm.write(str(out), file=sys.stdout)
        done += 1
    return int(done < len(images))


def _whole(
    images: Sequence[Path], rows: Sequence[Mapping[str, Any]], doing: str
) -> Iterator[tuple[Path, "np.ndarray", Mapping[str, Any]]]:
    """Yield each image that can be read, its pixels (H, W, 3) and row, and say which cannot."""
    from tqdm import tqdm

    from skinlesion.data.pixels import read_image

    for path, row in zip(tqdm(images, doing, disable=None), rows, strict=True):
        try:
            image = read_image(path)
        except SkinlesionError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            continue
        yield path, image, row


def _check(
    options: argparse.Namespace,
    model: Any,
    images: Sequence[Path],
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
) -> int:
    """Check explanations, print how alike they stay, and write a table and a figure."""
    import pandas as pd

    from skinlesion.files import replacing
    from skinlesion.reporting.figures.gallery import trust_figure
    from skinlesion.reporting.figures.style import save
    from skinlesion.serving.explain_check import as_text, check_image, siblings
    from skinlesion.serving.model import load_run

    if options.target is not None:
        model.place(options.target)
    others = [load_run(path, options.device) for path in siblings(options.model)]
    if not others:
        print("no other seed of this run is there to compare with", file=sys.stderr)
    found, done = [], 0
    for path, image, row in _whole(images, rows, "checking"):
        given = (model, others, model.fitted(image), row, methods, options.target)
        checked = check_image(*given, samples=options.samples)
        found += [(path.name, *each) for each in checked]
        done += 1
    if not found:
        return 1
    frame = pd.DataFrame(found, columns=["image", "method", "check", "ssim"])
    print(as_text(frame))
    table = options.out / "explain_check.csv"
    with replacing(table) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.4f")
    print(table)
    print(save(trust_figure(frame, str(options.model)), table.with_suffix(".png")))
    return int(done < len(images))


def _export(options: argparse.Namespace) -> None:
    """Export, measure, and print the table."""
    formats = choose(f"{options.formats},phone" if options.phone else options.formats)
    if options.repeats < 0:
        raise SkinlesionError(f"--repeats {options.repeats}: expected 0 or more.")

    runs = dict.fromkeys(map(Path, options.runs))
    for path in runs:
        _needs_torch(path, "export")

    from skinlesion.files import replacing
    from skinlesion.serving.export.bundle import export_run
    from skinlesion.serving.export.card import markdown
    from skinlesion.text import aligned

    exports = [
        export_run(path, options.out, formats, options.data, options.repeats) for path in runs
    ]
    records = [record for _, record in exports]
    rows = [_row(record, kind) for record in records for kind in record["files"]]
    print(aligned([HEAD, None, *rows], left=2))
    print()
    for folder, _ in exports:
        print(folder)
    if options.out:
        processors = sorted({record["provenance"]["cpu"] or "unknown" for record in records})
        text = markdown("table.md", head=HEAD, rows=rows, processors=processors)
        with replacing(options.out / "table.md") as path:
            path.write_text(text, encoding="utf-8")
        print(options.out / "table.md")


def _row(record: dict[str, Any], kind: str) -> Sequence[str]:
    from skinlesion.serving.export.card import latency
    from skinlesion.text import counted, number

    about = record["files"][kind]
    quality = about["quality"]
    cells = ["not measured" if record["trained"] else "not trained"] * 2 + ["-"]
    if quality is not None:
        images = counted(quality["n"], "drawn image" if record["data"] == "drawn" else "image")
        cells = [number(quality["accuracy"]), number(quality["balanced_accuracy"])]
        cells += [f"{record['part']}, {images}; {counted(record['epochs'], 'epoch')}"]
    return [
        *(record["run"], FORMATS[kind].file, number(about["mb"], ".2f")),
        *(f"{record['parameters']:,}", str(record["input_size"]), latency(about), *cells),
    ]


def _app(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    if options.host not in ("localhost", "::1") and not options.host.startswith("127."):
        print(
            f"warning: listening on {options.host}: everybody who can reach this port can use the "
            "model. Nothing is authenticated or encrypted: nobody is asked for a password, and "
            "images travel readable. Without --host, only this machine can reach it.",
            file=sys.stderr,
        )
    _needs_torch(options.model, "app")
    from skinlesion.serving.app import serve
    from skinlesion.serving.model import load_run

    model = load_run(options.model, options.device)
    _say_region(model)
    try:
        serve(model, options.model, options.host, options.port, options.open)
    except Terminated:
        raise
    except KeyboardInterrupt:  # the way to end it
        print()


def _open_all(
    options: argparse.Namespace,
) -> tuple[Any, list[Path], list[Mapping[str, Any]]]:
    """Return the model, the images, and what is known of each; a line of the table goes first.

    Raises:
        SkinlesionError: if the model cannot be loaded, a folder holds no image, or a property, its
            value or the table is wrong; no image is read before.
    """
    with quick_imports():
        from skinlesion.data.archive import image_name

    images = [image for path in options.images for image in _images_in(Path(path))]
    names = [image_name(path.name) for path in images]
    model = _load(options.model, options.device)
    _say_region(model)
    common = dict(_pair(text) for text in options.set)
    common |= {name: value for name in SHORT if (value := getattr(options, name)) is not None}
    table = _read_csv(options.csv, [*model.encoder.properties]) if options.csv else {}
    if options.csv and not table.keys() & set(names):
        raise SkinlesionError(
            f"{options.csv} names none of the images; it names {listing([*table], 3)}, the images "
            f"are {listing([path.name for path in images], 3)}."
        )
    rows: list[Mapping[str, Any]] = [common | table.get(name, {}) for name in names]
    model.encoder.read(rows)  # only to check them
    return model, images, rows


def _say_region(model: "Predictor") -> None:
    if model.region:
        print(
            f"warning: of each image this model saw a part, by the lesion's mask (data.region="
            f"{model.region}): hand over images that are cut alike.",
            file=sys.stderr,
        )


def _load(path: Path, device: str) -> "Predictor":
    """Return the model of a run or an exported file; torch is imported unless it is ONNX."""
    with quick_imports():
        if path.suffix != ".onnx":
            from skinlesion.serving.model import load_run

            return load_run(path, device)
        from skinlesion.serving.onnx_model import load_onnx
    if device != "cpu":
        raise SkinlesionError(f"--device {device}: an .onnx file is run on the CPU here.")
    return load_onnx(path)


def _needs_torch(path: Path, command: str) -> None:
    if path.suffix == ".onnx":
        raise SkinlesionError(
            f"{path}: {command} needs the network in PyTorch, which an .onnx file does not hold: "
            "give the run directory or its model.safetensors."
        )


def _images_in(path: Path) -> list[Path]:
    """Return a file, or the images of a folder, sorted by name.

    What else is in a folder is named on the standard error: it may well be a picture.
    """
    from skinlesion.data.archive import is_image
    from skinlesion.data.pixels import SUFFIXES

    if not path.is_dir():
        return [path]
    inside = sorted(path.iterdir())
    found = [entry for entry in inside if is_image(entry.name) and entry.is_file()]
    others = [entry.name for entry in inside if entry not in found]
    if not found:
        raise SkinlesionError(
            f"{path} holds no image ({', '.join(SUFFIXES)}), but {listing(others) or 'nothing'}."
        )
    if others:
        print(f"{path}: passed over, as no image: {listing(others)}", file=sys.stderr)
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SkinlesionError(f"--set {text}: expected name=value, such as --set age=45.")
    return name.strip(), value


def _read_csv(path: Path, properties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return image → its metadata, blanks left out."""
    from skinlesion.data.archive import image_name
    from skinlesion.files import read_rows

    found, rows = read_rows(path)
    columns = {name.casefold(): i for i, name in enumerate(found)}
    key = next((columns[name] for name in NAME_COLUMNS if name in columns), None)
    known = {name: columns[name.casefold()] for name in properties if name.casefold() in columns}
    if key is None or not known:
        raise SkinlesionError(
            f"{path}: expected a column {' or '.join(NAME_COLUMNS)} and some of "
            f"{', '.join(properties) or 'none'}; found {listing(found, 12)}."
        )
    named = [(image_name(name), row) for row in rows.values() if (name := row[key]) is not None]
    if twice := [name for name, count in Counter(n for n, _ in named).items() if count > 1]:
        raise SkinlesionError(f"{path}: images with two lines: {listing(twice)}.")
    return {
        image: {name: cell for name, i in known.items() if (cell := row[i]) is not None}
        for image, row in named
    }
