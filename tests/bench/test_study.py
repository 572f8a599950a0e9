"""A sweep in slices of minutes: how far each run is, beside the measurements of the same device."""

import json
from pathlib import Path

import pytest

from skinlesion.bench.report import write_page
from skinlesion.bench.study import main
from skinlesion.errors import SkinlesionError


def test_a_study_keeps_how_far_each_run_is_and_leaves_the_page_of_measurements_alone(
    archive: Path, tmp_path: Path
) -> None:
    overrides = [
        *("seed=0", "debug=fast", "weights=none", "preprocess=paper", "machine.device=cpu"),
        *("backbone.input_size=64", f"machine.data={archive}", f"machine.cache={tmp_path / 'cache'}"),
        f"machine.runs={tmp_path / 'runs'}",
    ]
    main(["table10", "--minutes", "5", "--out", str(tmp_path / "bench"), *overrides])
    (device,) = (tmp_path / "bench").iterdir()
    study = json.loads((device / "studies" / "table10.json").read_text())
    (run,) = study["runs"]
    assert (run["state"], run["epochs"], run["compute"]["device"]) == ("done", 1, "cpu")
    assert run["metrics"]["val"]["n"] > 0
    assert write_page(device, [])


def test_without_time_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(SkinlesionError, match="--minutes 0: expected a number above 0"):
        main(["table10", "--minutes", "0", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
