"""What a report's page says of runs: all in one table, the leakage of splits, each by itself."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import OmegaConf

from skinlesion.data.split import PARTS
from skinlesion.reporting.markup import (
    Html,
    Key,
    Line,
    definitions,
    folded,
    join,
    scrolling,
    sortable,
    tag,
)
from skinlesion.reporting.report import FIGURES, Part, Report, RunReport
from skinlesion.runs.outcome import duration

PER_CLASS = {
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "auc": "AUC",
}
PHOTOGRAPHS = 80_000  # bytes at QUALITY from which a picture holds photographs
QUALITY = 70
WIDEST = 1200  # pixels of a picture with photographs

_COLUMNS = (
    *("run", "backbone", "cut", "attention", "metadata", "protocol", "part", "seed"),
    *("accuracy", "balanced accuracy", "macro AUC", "macro F1", "ECE", "parameters"),
    *("seconds per epoch", "epochs", "images", "leaked"),
)
_WORDS = 7  # of these columns are text


def all_runs(report: Report) -> list[Html]:
    """Return the table of all runs, its filter, and what is left out."""
    said = [
        tag(
            "p",
            "A line a run, of the part that its protocol reports: val by image, where these images "
            "also selected the checkpoint, and test by lesion. Below an accuracy stands its 95 % "
            "interval; leaked is the share of those images whose lesion is also in training.",
        ),
        _filter(),
        sortable("All runs", _COLUMNS, _WORDS, [_run_line(shown) for shown in report.runs]),
    ]
    if report.left_out:
        listed = [
            tag("li", tag("code", str(path)), f": {why}") for path, why in report.left_out.items()
        ]
        said += [tag("p", "Not shown, because damaged or unfinished:"), tag("ul", *listed)]
    return said


def _filter() -> Html:
    choices = (("all", "all"), ("image", "by image"), ("lesion", "by lesion"))
    labels = [
        tag(
            "label",
            tag("input", type="radio", name="protocol", value=value, checked=value == "all"),
            text,
        )
        for value, text in choices
    ]
    return tag(
        "fieldset",
        tag("legend", "Protocol:"),
        *labels,
        tag("output"),
        class_="filter",
        hidden=True,
    )


def _run_line(shown: RunReport) -> Line:
    run, metrics = shown.run, shown.reported.metrics
    backbone, key, seed = shown.run.directory.path.parts[-3:]
    choices = shown.choices
    words = [backbone, *(choices.get(n, "") for n in ("cut", "attention", "metadata branch"))]
    words += [shown.protocol, shown.reported.name]
    made = run.made_with
    numbers: list[tuple[Key, str | Html]] = [
        (int(run.config.seed), str(run.config.seed)),
        (metrics["accuracy"], join([_share(metrics["accuracy"]), _interval(shown)])),
        *((value, _share(value)) for value in _overall(metrics)),
        (made["parameters"], f"{made['parameters']:,}"),
        (made["seconds_per_epoch"], f"{made['seconds_per_epoch']:,.1f}"),
        (made["epochs"], str(made["epochs"])),
        (metrics["n"], f"{metrics['n']:,}"),
        (shown.reported.leak.get("share"), _percent(shown.reported.leak.get("share"))),
    ]
    link = tag("a", f"{key}/{seed}", href=f"#{quote(shown.name)}")
    return Line(
        [
            tag("th", link, scope="row"),
            *(tag("td", word, class_="word") for word in words),
            *(tag("td", text) for _, text in numbers),
        ],
        [f"{key}/{seed}", *(word or None for word in words), *(key for key, _ in numbers)],
        {"class_": "run", "data_protocol": shown.by},
    )


def _overall(metrics: Mapping[str, Any]) -> list[float | None]:
    return [
        metrics["balanced_accuracy"],
        metrics["macro"]["auc"],
        metrics["macro"]["f1"],
        metrics["ece"],
    ]


def run_article(shown: RunReport, pictures: Mapping[Path, Html]) -> Html:
    """Return the section of a run, to which its name is a link; `pictures` by their files."""
    backbone, key, seed = shown.run.directory.path.parts[-3:]
    metrics = shown.reported.metrics
    at_a_glance = (
        f"{shown.protocol}, {shown.reported.name}: accuracy {_share(metrics['accuracy'])} "
        f"({_share(shown.low)}-{_share(shown.high)}), balanced accuracy "
        f"{_share(metrics['balanced_accuracy'])}, macro AUC {_share(metrics['macro']['auc'])}, "
        f"{metrics['n']:,} images"
    )
    title = f"{backbone} · {key} · {seed}"
    anchor = tag(
        "a", "#", href=f"#{quote(shown.name)}", class_="anchor", aria_label=f"Link to {title}"
    )
    drawn = [pictures[path] for path in shown.figures if path in pictures]
    content = [
        *(_part(shown, part) for part in reversed(shown.parts)),
        *([tag("h4", "Figures"), tag("div", *drawn, class_="figures")] if drawn else []),
        tag("p", shown.note, class_="soft") if shown.note else "",
        tag(
            "div",
            tag("div", tag("h4", "What it is"), definitions(shown.choices)),
            tag("div", *_differences(shown)),
            class_="pair",
        ),
        folded("Provenance", definitions(_provenance(shown))),
        folded("The whole config", tag("pre", OmegaConf.to_yaml(shown.run.config), tabindex=0)),
    ]
    return tag(
        "article",
        tag("h3", title, anchor),
        tag("p", at_a_glance, class_="soft"),
        folded("Metrics by class, figures, config, provenance", *content),
        id=shown.name,
        data_protocol=shown.by,
    )


def _part(shown: RunReport, part: Part) -> Html:
    role = "selected nothing" if part.name == "test" else "selected the checkpoint"
    metrics, leak = part.metrics, part.leak.get("per_class", {})
    head = ["class", "images", *PER_CLASS.values(), *(["leaked"] if leak else [])]
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", f"{values['support']:,}"),
            *(tag("td", _share(values[metric])) for metric in PER_CLASS),
            tag("td", _leaked(leak.get(name))) if leak else None,
        )
        for name, values in metrics["per_class"].items()
    ]
    sums = [
        tag(
            "tr",
            tag("th", title, scope="row"),
            tag("td", f"{metrics['n']:,}" if key == "macro" else ""),
            *(tag("td", _share(metrics[key][metric])) for metric in PER_CLASS),
            tag("td", _leaked(part.leak) if key == "macro" else "") if leak else None,
        )
        for title, key in (("macro mean", "macro"), ("sd over classes", "sd"))
    ]
    overall = ", ".join(
        f"{title} {_share(metrics[name])}"
        for title, name in (
            ("accuracy", "accuracy"),
            ("balanced accuracy", "balanced_accuracy"),
            ("ECE", "ece"),
            ("Brier score", "brier"),
        )
    )
    heads = [
        tag("th", text, scope="col", class_=None if i else "word") for i, text in enumerate(head)
    ]
    return join(
        [
            tag("h4", f"{part.name}: {metrics['n']:,} images, which {role}"),
            scrolling(
                f"Metrics by class of {shown.name}, {part.name}",
                tag("thead", tag("tr", *heads)),
                tag("tbody", *rows),
                tag("tfoot", *sums),
                kind="classes",
            ),
            tag("p", overall, class_="soft"),
        ]
    )


def _differences(shown: RunReport) -> list[Html]:
    title = "Where it differs from the default job with this backbone"
    if not shown.differences:
        return [tag("h4", title), tag("p", "Nowhere.")]
    rows = [
        tag(
            "tr",
            tag("th", tag("code", found.name), scope="row"),
            *(
                tag("td", "-" if v is None else v, class_="word")
                for v in (found.value, found.default)
            ),
        )
        for found in shown.differences
    ]
    heads = [tag("th", text, scope="col", class_="word") for text in ("value", "here", "default")]
    table = [tag("thead", tag("tr", *heads)), tag("tbody", *rows)]
    name = f"Where {shown.name} differs from the default job"
    return [tag("h4", title), scrolling(name, *table, kind="differences")]


def _provenance(shown: RunReport) -> dict[str, str]:
    made = dict(shown.run.made_with)
    facts = {
        "commit": commit_of(made, digits=40),
        "commits at its starts": ", ".join(
            dict.fromkeys(str(commit)[:7] for commit in made.pop("commits", []))
        ),
    }
    made.pop("commit")
    made.pop("dirty")
    seconds = made.pop("training_seconds", None)
    packages = made.pop("packages", {})
    facts |= {name.replace("_", " "): _or_none(value) for name, value in made.items()}
    if isinstance(seconds, int | float):
        facts["time in training"] = f"{duration(seconds)} (hours:minutes:seconds)"
    if isinstance(packages, dict):
        facts["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    facts["directory"] = str(shown.run.directory.path)
    return {name: text for name, text in facts.items() if text}


def commit_of(made_with: Mapping[str, Any], digits: int = 7) -> str:
    """Return the commit of a run's provenance, and whether it was changed."""
    commit = str(made_with["commit"])[:digits]
    return f"{commit} with uncommitted changes" if made_with["dirty"] else commit


def leakage(runs: Sequence[RunReport]) -> list[Html]:
    """Lay out how many held-out images show a lesion of training, equal splits in one line."""
    found: dict[str, list[tuple[RunReport, Part]]] = {}
    for shown in runs:
        for part in shown.parts:
            if part.leak:
                split = json.dumps([shown.protocol, part.name, part.leak], sort_keys=True)
                found.setdefault(split, []).append((shown, part))
    if not found:
        return [tag("p", "No run says how many of its held-out images share a lesion.")]
    parts = [part for same in found.values() for _, part in same]
    classes = [*dict.fromkeys(name for part in parts for name in part.leak.get("per_class", {}))]
    lines = []
    for _, same in sorted(found.items()):
        (shown, part), names = same[0], [run.name for run, _ in same]
        leak, by_class = part.leak, part.leak.get("per_class", {})
        cells = [
            tag("th", shown.protocol, scope="row"),
            tag("td", part.name, class_="word"),
            tag("td", str(len(names)), title=", ".join(names)),
            tag("td", f"{leak['images']:,}"),
            tag("td", f"{leak['leaked']:,}"),
            tag("td", _percent(leak["share"])),
            *(tag("td", _leaked(by_class.get(name))) for name in classes),
        ]
        shares = [by_class.get(name, {}).get("share") for name in classes]
        keys = [shown.protocol, part.name, len(names), leak["images"], leak["leaked"]]
        lines.append(Line(cells, [*keys, leak["share"], *shares], {"data_protocol": shown.by}))
    head = ["protocol", "part", "runs", "held-out images", "leaked", "share"]
    return [
        tag(
            "p",
            "Held-out images that show a lesion of which another photograph is in training, in all "
            "and by class: count of images, and share. Runs with the same split share a line.",
        ),
        sortable("Leakage of the splits", [*head, *classes], 2, lines),
    ]


def _leaked(found: Mapping[str, Any] | None) -> str:
    if not found or "leaked" not in found:
        return "-"
    return f"{found['leaked']:,} of {found['images']:,} ({_percent(found['share'])})"


def pictures_of(runs: Sequence[RunReport]) -> dict[Path, Html]:
    """Return each picture as an element, its pixels in it."""
    wanted = [(path, shown) for shown in runs for path in shown.figures]
    with ThreadPoolExecutor(max_workers=4) as threads:  # encoding lets other threads work
        encoded = threads.map(_encode, (path for path, _ in wanted))
        return {
            path: _figure(path, shown, *found)
            for (path, shown), found in zip(wanted, encoded, strict=True)
        }


def _figure(path: Path, shown: RunReport, data: bytes, width: int, height: int) -> Html:
    kind, _, part = path.stem.rpartition("_")
    kind, part = (kind, f", {part}") if part in PARTS else (path.stem, "")
    name = FIGURES.get(kind, kind.replace("_", " ")) + part
    return tag(
        "figure",
        tag(
            "img",
            src=f"data:image/webp;base64,{base64.b64encode(data).decode()}",
            alt=f"{name}, {shown.name}",
            width=width,
            height=height,
            loading="lazy",
        ),
        tag("figcaption", name),
    )


def _encode(path: Path) -> tuple[bytes, int, int]:
    """Return a picture as WebP, and its width and height; a drawing loses nothing."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    if len(_webp(image, quality=QUALITY)) < PHOTOGRAPHS:
        return _webp(image, lossless=True, method=2), *image.size
    image.thumbnail((WIDEST, image.height))
    return _webp(image, quality=QUALITY), *image.size


def _webp(image: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", **options)
    return out.getvalue()


def _interval(shown: RunReport) -> Html:
    return tag("span", f"{_share(shown.low)}-{_share(shown.high)}", class_="interval")


def _share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _or_none(value: Any) -> str:
    return "none" if value is None else str(value)
