"""Every override that docs/fidelity.md names builds a network and takes a step."""

import re
from pathlib import Path

import pandas as pd
import pytest

from skinlesion.training.run import run

ROOT = Path(__file__).parents[2]


def table():
    """The cells of the table of choices."""
    text = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\|(.*)\|$", text.split("## Choices")[1].split("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


OVERRIDES = {found for row in table() for found in re.findall(r"`([^`]+)`", row[4])}


def test_every_row_has_its_six_cells_an_override_and_a_proof_that_exists():
    assert {len(row) for row in table()} == {6}
    choices = [row for row in table() if not row[0].startswith("**")]
    assert len(choices) >= 25
    proof = ""
    for row in choices:
        assert re.search(r"`[^`]+=[^`]+`", row[4]), f"no override: {row[0]}"
        proof = proof if row[5] == "same" else row[5]
        for path in re.findall(r"`(tests/[^`]+)`", proof):
            assert (ROOT / path).exists(), f"{row[0]}: {path}"
        assert "`" in proof, f"no proof: {row[0]}"


@pytest.mark.parametrize("override", sorted(OVERRIDES))
def test_the_override_builds_and_takes_a_step(config, plain, override):
    assert plain(*override.split()) != plain(), "it changes nothing"
    directory = run(config("debug=fast", "trainer.max_epochs=1", *override.split()))
    history = pd.read_csv(directory.history)
    assert history["train_loss"].notna().tolist() == [True]
    assert directory.done.exists()
