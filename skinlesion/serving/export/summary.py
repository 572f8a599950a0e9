"""The table over all exported runs: a row for each file."""

from collections.abc import Sequence
from typing import Any

from skinlesion.serving.export.formats import FILES
from skinlesion.serving.export.text import latency, table

HEAD = (
    *("run", "file", "MB", "parameters", "input, px", "latency, ms"),
    *("accuracy", "balanced accuracy", "measured on"),
)
TEXTS = 2  # columns of text before those of numbers
NOTES = (
    "Latency: one image, one thread of {cpu}, from pixels to probabilities; the files took turns; "
    "median, in brackets the quartiles. MB are 10^6 bytes. Accuracy: on the same held-out images, "
    "of the run's predictions for `model.safetensors` and of the file itself for the others. A run "
    "of a few batches (`debug=fast`) is not trained and has none."
)


def rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the table's cells, the head first."""
    return [[*HEAD], *(_row(r, kind) for r in records for kind in r["files"])]


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown, with what the columns mean."""
    processors = sorted({r["made_with"]["cpu"] or "unknown" for r in records})
    return f"{table(rows(records), TEXTS)}\n\n{NOTES.format(cpu=', '.join(processors))}\n"


def console(records: Sequence[dict[str, Any]]) -> str:
    """Return the table for a terminal."""
    cells = rows(records)
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < TEXTS or i == len(HEAD) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(record: dict[str, Any], kind: str) -> list[str]:
    about = record["files"][kind]
    return [
        record["run"],
        FILES[kind],
        f"{about['mb']:.2f}",
        f"{record['parameters']:,}",
        str(record["input_size"]),
        latency(about),
        *_quality(record, about["quality"]),
    ]


def _quality(record: dict[str, Any], quality: dict[str, Any] | None) -> tuple[str, str, str]:
    if not record["trained"]:
        return "not trained", "not trained", "-"
    if quality is None:
        return "not measured", "not measured", "-"
    drawn = "drawn " if record["data"] == "drawn" else ""
    epochs = "1 epoch" if record["epochs"] == 1 else f"{record['epochs']} epochs"
    where = f"{record['part']}, {quality['n']:,} {drawn}images; {epochs}"
    return f"{quality['accuracy']:.3f}", f"{quality['balanced_accuracy']:.3f}", where
