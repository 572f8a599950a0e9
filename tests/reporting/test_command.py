"""``python -m skinlesion.reporting`` as a person types it."""

from pathlib import Path

import pytest

from skinlesion.reporting.__main__ import main

MOBILE = ["experiment=md_mobilenet_v2", "seed=0"]


@pytest.fixture
def runs(folder) -> str:
    """A folder with one run."""
    (job,) = folder.sweep("table4", *MOBILE).jobs
    folder.add(job)
    return f"machine.runs={folder.path}"


def test_tables_are_written_beside_the_runs(folder, runs: str, capsys) -> None:
    main(["tables", "table4", "table5", *MOBILE, runs])
    written = {path.name for path in (folder.path / "tables").iterdir()}
    endings = ("md", "csv", "tex")
    assert written == {
        "index.html",
        *(f"{name}.{end}" for name in ("table4", "table5") for end in endings),
    }
    assert "table4.md, .csv, .tex: 1 runs, 0 not run" in capsys.readouterr().out


def test_without_a_name_the_papers_tables_are_written(folder, runs: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["tables", "--out", str(out), "seed=0", runs])
    assert {path.stem for path in out.glob("*.md")} == {f"table{n}" for n in range(3, 12)}


def test_a_collection_gives_the_same_table_and_names_no_path(folder, runs: str, tmp_path) -> None:
    kept = tmp_path / "kept"
    main(["collect", str(folder.path), str(kept)])
    for where, out in ((folder.path, "a"), (kept, "b")):
        main(["tables", "table4", *MOBILE, f"machine.runs={where}", "--out", str(tmp_path / out)])
    first, second = ((tmp_path / out / "table4.csv").read_text() for out in "ab")
    assert first == second
    assert "not run" not in (tmp_path / "b" / "table4.md").read_text()
    (config,) = kept.glob("*/*/*/config.yaml")
    assert str(tmp_path) not in config.read_text()


def test_nothing_to_collect_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds no finished run"):
        main(["collect", str(tmp_path), str(tmp_path / "kept")])
    assert not (tmp_path / "kept").exists()


def test_status_counts(runs: str, capsys) -> None:
    main(["status", "table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0", runs])
    assert "1 done, 1 left" in capsys.readouterr().out


def test_two_runs_are_compared(folder, capsys) -> None:
    jobs = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0").jobs
    a, b = (folder.add(job, right) for job, right in zip(jobs, (0.7, 0.9), strict=True))
    main(["compare", str(a), str(b)])
    (accuracy,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("accuracy")
    )
    assert accuracy.split()[1:4] == ["0.7000", "0.9000", "+0.2000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tables", "table12"], "there is no sweep table12; there are ablation"),
        (["status", "table4", "table5"], "name one sweep"),
        (["tables", "table4", "optimiser.lr=1"], "there is no 'optimiser.lr' in the config"),
        (["compare", "nowhere", "elsewhere"], "nowhere has neither predictions.csv"),
    ],
)
def test_wrong_input_is_one_message(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert message in str(stopped.value)


def test_an_unknown_option_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["tables", "table4", "--format=pdf"])
    assert "unrecognized arguments: --format=pdf" in capsys.readouterr().err
