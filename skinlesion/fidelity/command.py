"""`skinlesion ledger` and `skinlesion parity`: print the two comparisons with Keras."""

import argparse
from pathlib import Path
from typing import Any

from skinlesion.cli import Run
from skinlesion.errors import SkinlesionError


def ledger(parser: argparse.ArgumentParser) -> Run:
    """`skinlesion ledger`: print it; an error where something is unexplained."""
    parser.epilog = "What Keras has was counted once; skinlesion parity compares what it computes."
    return lambda _: _print_ledger()


def _print_ledger() -> None:
    from tqdm import tqdm

    from skinlesion.fidelity.cases import pins
    from skinlesion.fidelity.ledger import CAUSES, TABLE_9, backbones, count

    every = backbones()
    trained = [fields for name, fields in every.items() if name in pins()]
    cuts = [every[TABLE_9] | {"cut": pin["cut"]} for pin in pins()[TABLE_9]["cuts"]]
    networks_agree = _print_table(
        "The nine backbones that the authors trained, each with soft attention, metadata and head",
        [count(fields) for fields in tqdm(trained, leave=False, disable=None)],
        without=["Table 9"],
    )
    cuts_agree = _print_table(
        "The cuts of Table 9, the backbone alone",
        [count(fields, attention=None) for fields in tqdm(cuts, leave=False, disable=None)],
        without=["backbone", "biases", "scales", "gamma", "age"],
    )
    print("\n" + "\n".join(f"{cause:<12}{meaning}" for cause, meaning in CAUSES.items()))
    if not (networks_agree and cuts_agree):
        raise SkinlesionError("a shape or a parameter is not Keras'.")
    print("\nNo parameter is unexplained.")


def _print_table(title: str, lines: list[dict[str, Any]], without: list[str]) -> bool:
    import pandas as pd

    table = pd.DataFrame(lines)
    shown = table.drop(columns=[*without, "agrees"])
    written = shown.map(lambda value: value if isinstance(value, str) else f"{value:,}")
    print(f"\n{title}\n\n{written.to_string(index=False)}", flush=True)
    return bool(table["agrees"].all())


def parity(parser: argparse.ArgumentParser) -> Run:
    """`skinlesion parity FILE`: print every cut; an error where one is too far off."""
    parser.add_argument(
        "file", type=Path, help="what Keras computed: `make keras-parity` writes it"
    )
    return lambda options: _print_parity(options.file)


def _print_parity(file: Path) -> None:
    from skinlesion.fidelity.cases import TOLERANCE, Reference
    from skinlesion.fidelity.parity import compare

    reference = Reference.read(file)
    print(", ".join(f"{name} {version}" for name, version in reference.about.items()))
    line = "{:20}{:38}{:>6}  {:34}{:14}{:>15}".format
    print(line("backbone", "Keras layer", "index", "our cut", "shape", "relative error"))
    worst = 0.0
    for row, error in compare(reference):
        print(line(*row, f"{error:.1e}"), flush=True)
        worst = max(worst, error)
    if worst > TOLERANCE:
        raise SkinlesionError(f"the largest relative error is above {TOLERANCE:.0e}.")
    print(f"every relative error is at most {TOLERANCE:.0e}")
