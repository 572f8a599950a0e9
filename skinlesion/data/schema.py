"""What a data set is made of, as `conf/data/<name>.yaml` declares it: tables, classes, metadata."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from skinlesion.errors import SkinlesionError, listing

UNKNOWN = "unknown"
"""The value of a category that is missing; every category has it."""

# Columns of the table, of the split and of the predictions, and what predict() calls the image.
TAKEN = ("image_id", "lesion_id", "dx", "split", "label", "image")
LESION_MISSING = ("error", "own")


@dataclass(frozen=True)
class Range:
    """A property that is a number.

    Attributes:
        column: of the table.
        low: smallest value that can be.
        high: largest value that can be.
    """

    column: str
    low: float
    high: float

    @property
    def size(self) -> int:
        """Features of the encoding: the number."""
        return 1


@dataclass(frozen=True)
class Values:
    """A property that is one of several values.

    Attributes:
        column: of the table.
        values: in the order of encoding, `unknown` among them.
    """

    column: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Features of the encoding: one for what training has not seen, one for each value."""
        return 1 + len(self.values)


@dataclass(frozen=True)
class Schema:
    """What a data set is made of.

    Attributes:
        tables: names of the tables in `data.root`, with or without ending; several are joined by
            the image column.
        classes: in the order of everything that has one number for each class.
        image: column of the images' names, with or without the files' ending.
        lesion: column of the lesions; None: every image is a lesion of its own.
        label: column of the class; None: each class is a column, one of them 1 in each row.
        properties: the metadata, in the order of encoding, by the name they go by here.
        lesion_missing: an image without a lesion is an `error`, or a lesion of its `own`.
    """

    tables: tuple[str, ...]
    classes: tuple[str, ...]
    image: str
    lesion: str | None
    label: str | None
    properties: Mapping[str, Range | Values]
    lesion_missing: str = "error"

    @classmethod
    def from_config(cls, data: DictConfig | Mapping[str, Any]) -> "Schema":
        """Read the schema from `config.data`.

        Raises:
            SkinlesionError: one error that names all that is wrong with it.
        """
        plain: Any = (
            OmegaConf.to_container(data, resolve=True) if OmegaConf.is_config(data) else data
        )
        absent = [key for key in ("tables", "classes", "columns", "properties") if key not in plain]
        if absent:
            raise SkinlesionError(
                f"data does not say its {', '.join(absent)}: expected all of tables, classes, "
                "columns and properties, as in conf/data/ham10000.yaml."
            )
        reader = _Reader()
        columns = reader.mapping("data.columns", plain["columns"])
        reader.keys("data.columns", columns, ("image", "lesion", "label"), more=("lesion_missing",))
        classes = reader.names("data.classes", plain["classes"], fewest=2)
        reader.not_taken("data.classes", classes)
        schema = cls(
            tables=reader.names("data.tables", plain["tables"], fewest=1),
            classes=classes,
            image=reader.name("data.columns.image", columns.get("image")) or "",
            lesion=reader.name("data.columns.lesion", columns.get("lesion"), optional=True),
            label=reader.name("data.columns.label", columns.get("label"), optional=True),
            properties=reader.properties(plain["properties"]),
            lesion_missing=columns.get("lesion_missing", "error"),
        )
        if schema.lesion_missing not in LESION_MISSING:
            reader.problems.append(
                f"data.columns.lesion_missing={schema.lesion_missing}: expected one of "
                f"{', '.join(LESION_MISSING)}"
            )
        if reader.problems:
            raise SkinlesionError("; ".join(reader.problems))
        return schema

    @property
    def sizes(self) -> tuple[int, ...]:
        """Encoded features of each property; HAM10000: (1, 4, 16)."""
        return tuple(declared.size for declared in self.properties.values())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that is read, whatever the file calls them."""
        return ("lesion_id", "image_id", "dx", *self.properties)


def matching(text: str, names: Iterable[str]) -> str | None:
    """Return the name that a text means: the same, or the same but for capitals."""
    folded = {name.casefold(): name for name in names}
    return folded.get(text.casefold())


class _Reader:
    """Reads values and collects what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def mapping(self, where: str, value: Any) -> Mapping[Any, Any]:
        if isinstance(value, Mapping):
            return value
        self.problems.append(f"{where}={value}: expected names and values, as name: value")
        return {}

    def keys(
        self, where: str, value: Mapping[Any, Any], every: Sequence[str], more: Sequence[str] = ()
    ) -> None:
        if absent := [key for key in every if key not in value]:
            self.problems.append(f"{where}: expected {listing(absent)} too")
        if unknown := [key for key in value if key not in (*every, *more)]:
            self.problems.append(
                f"{where}: there is no {listing(unknown)}, expected {', '.join((*every, *more))}"
            )

    def name(self, where: str, value: Any, optional: bool = False) -> str | None:
        if value is None and optional:
            return None
        # YAML reads yes, no, on and off as truth values.
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.problems.append(f"{where}={value}: expected a name (yes and no need quotes)")
            return None
        text = str(value).strip()
        if not text:
            self.problems.append(f"{where} is empty: expected a name")
        return text

    def names(self, where: str, value: Any, fewest: int) -> tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            self.problems.append(f"{where}={value}: expected a list, [a, b, …]")
            return ()
        names = [name for item in value if (name := self.name(where, item)) is not None]
        counts = Counter(name.casefold() for name in names)
        if twice := [name for name in dict.fromkeys(names) if counts[name.casefold()] > 1]:
            self.problems.append(
                f"{where}: {listing(twice)} more than once; expected names that differ, and not "
                "in capitals alone"
            )
        if len(value) < fewest:
            what = "names" if fewest > 1 else "name"
            self.problems.append(f"{where}={[*value]}: expected at least {fewest} {what}")
        return tuple(names)

    def not_taken(self, where: str, names: Iterable[str]) -> None:
        if clash := [name for name in names if name in TAKEN]:
            self.problems.append(
                f"{where}: {listing(clash)} cannot be a name here, because files of a run have "
                f"columns of these names: {', '.join(TAKEN)}"
            )

    def properties(self, value: Any) -> dict[str, Range | Values]:
        found: dict[str, Range | Values] = {}
        for key, declared in self.mapping("data.properties", value).items():
            name = self.name("data.properties", key)
            if name is not None and (read := self.property(name, declared)) is not None:
                found[name] = read
        self.not_taken("data.properties", found)
        return found

    def property(self, name: str, declared: Any) -> Range | Values | None:
        where = f"data.properties.{name}"
        options = self.mapping(where, declared)
        self.keys(where, options, (), more=("range", "values", "column"))
        column = self.name(f"{where}.column", options.get("column", name))
        if (options.get("range") is None) == (options.get("values") is None):
            self.problems.append(
                f"{where}: expected one of range: [low, high] and values: [a, b, …], found "
                f"{'neither' if options.get('range') is None else 'both'}"
            )
        elif options.get("range") is not None:
            return self.range(f"{where}.range", column or name, options["range"])
        else:
            values = self.names(f"{where}.values", options["values"], fewest=1)
            values = tuple(UNKNOWN if matching(v, [UNKNOWN]) else v for v in values)
            # What is missing needs it.
            return Values(column or name, values if UNKNOWN in values else (*values, UNKNOWN))
        return None

    def range(self, where: str, column: str, value: Any) -> Range | None:
        ends = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
        numbers = [v for v in ends if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(ends) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
            self.problems.append(f"{where}={value}: expected two numbers, [lowest, highest]")
            return None
        return Range(column, float(numbers[0]), float(numbers[1]))
