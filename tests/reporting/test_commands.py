"""``skinlesion tables, report, figures, compare, collect`` as a person types them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import skinlesion.reporting.figures
from skinlesion.cli import main

MOBILE = ["experiment=md_mobilenet_v2", "seed=0"]


def draw(directory: Any, data: Path | None = None) -> list[Path]:
    """Stand in for the figures, which have tests of their own."""
    directory.figures.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), "orange").save(directory.figures / "roc_val.png")
    return [directory.figures / "roc_val.png"]


@pytest.fixture
def run(folder) -> Path:
    return folder.add(folder.sweep("table4", *MOBILE).jobs[0])


def test_without_a_name_the_papers_tables_are_written(folder, tmp_path, monkeypatch) -> None:
    named: list[str] = []
    monkeypatch.setattr(
        "skinlesion.sweeps.jobs.read_sweep",
        lambda name, overrides: named.append(name) or folder.sweep("table4", *MOBILE),
    )
    main(["tables", "--out", str(tmp_path)])
    assert named == [f"table{n}" for n in range(3, 12)]


def test_a_damaged_run_is_named_and_stops_nothing(folder, run: Path, tmp_path, capsys) -> None:
    other = folder.path / "resnet50" / "key" / "seed0"
    other.mkdir(parents=True)
    (other / "DONE").touch()
    (other / "config.yaml").write_text("a: [1")
    (run / "provenance.json").unlink()
    main(["tables", "table4", *MOBILE, f"machine.runs={folder.path}", "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert "0 runs, 1 not run" in said.out
    for path, why in ((run, "provenance.json cannot be read"), (other, "config.yaml cannot be")):
        assert any(str(path) in line and why in line for line in said.err.splitlines())
    main(["collect", str(folder.path), str(tmp_path / "kept")])
    assert f"{run}: it has no provenance.json" in capsys.readouterr().err
    assert not [*(tmp_path / "kept").glob("*/*/*")]


def test_a_collection_gives_the_same_table_and_names_no_path(folder, run, tmp_path, capsys) -> None:
    kept = tmp_path / "kept"
    main(["collect", str(folder.path), str(kept)])
    for runs in (folder.path, kept):
        main(["tables", "table4", *MOBILE, f"machine.runs={runs}"])
        written = {path.name for path in (runs / "tables").iterdir()}
        assert written == {"index.html", "table4.md", "table4.csv", "table4.tex"}
        assert "table4.md, .csv, .tex: 1 runs, 0 not run" in capsys.readouterr().out
    first, second = ((runs / "tables" / "table4.csv").read_text() for runs in (folder.path, kept))
    assert first == second
    (config,) = kept.glob("*/*/*/config.yaml")
    assert str(tmp_path) not in config.read_text()


def test_two_runs_are_compared(folder, capsys) -> None:
    jobs = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0").jobs
    a, b = (folder.add(job, right) for job, right in zip(jobs, (0.7, 0.9), strict=True))
    main(["compare", str(a), str(b)])
    lines = capsys.readouterr().out.splitlines()
    (accuracy,) = (line for line in lines if line.startswith("accuracy"))
    assert accuracy.split()[1:4] == ["0.700", "0.900", "+0.200"]


def test_the_figures_of_a_run_or_of_a_folder_are_drawn(folder, run, monkeypatch, capsys) -> None:
    monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", draw)
    for folders in (run, folder.path):
        main(["figures", str(folders)])
        assert f"{run / 'figures'}: 1 figures" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is no finished run and holds none"):
        main(["figures", str(run / "figures")])


def test_a_report_is_written(folder, run: Path, monkeypatch, capsys) -> None:
    seen = []

    def see(directory: Any, data: Path | None) -> list[Path]:
        seen.append((directory.path, data))
        return draw(directory)

    monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", see)
    words = ["table4", *MOBILE, f"machine.runs={folder.path}"]
    main(["report", *words, "--data", "images"])
    assert seen == [(run, Path("images"))]
    assert f"{folder.path / 'report.html'}: 1 runs, 1 tables" in capsys.readouterr().out
    main(["report", *words, "--no-figures", "--out", str(folder.path / "bare.html")])
    assert "data:image" not in (folder.path / "bare.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tables", "table12"], "there is no sweep table12; there are ablation"),
        (["tables", "table4", "optimiser.lr=1"], "there is no 'optimiser.lr' in the config"),
        (["report", "table4", *MOBILE, "machine.runs=nowhere"], "holds no finished run that can"),
        (["compare", "nowhere", "elsewhere"], "nowhere has neither predictions.csv"),
        (["collect", "nowhere", "elsewhere"], "holds no finished run: there is nothing to"),
    ],
)
def test_wrong_input_is_one_message(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert message in str(stopped.value)


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\nfrom skinlesion.cli import main\n"
        "try:\n    main(['{}', '--help'])\n"
        "except SystemExit:\n    slow = {{'torch', 'pandas', 'matplotlib', 'jinja2', 'hydra'}}\n"
        "    sys.exit(bool(slow & set(sys.modules)))"
    )
    for command in ("tables", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")
