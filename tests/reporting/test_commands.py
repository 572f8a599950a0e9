"""``skinlesion tables, report, figures, compare, collect`` as a person types them."""

import errno
import os
from pathlib import Path

import pytest

import skinlesion.reporting.figures
from skinlesion.cli import main
from skinlesion.runs.predictions import read_predictions
from tests.reporting.conftest import draw

MOBILE = ["experiment=md_mobilenet_v2", "seed=0"]


def draw_readable(directory, data):
    assert directory.config
    read_predictions(directory.predictions)
    return draw(directory)


@pytest.fixture
def run(folder):
    return folder.add(folder.sweep("table4", *MOBILE).jobs[0])


def test_without_a_name_the_papers_tables_are_written(folder, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(
        "skinlesion.sweeps.jobs.read_sweep",
        lambda name, overrides: named.append(name) or folder.sweep("table4", *MOBILE),
    )
    main(["tables", "--out", str(tmp_path)])
    assert named == [f"table{n}" for n in range(3, 12)]


DAMAGED = [
    *(("config.yaml", text, "config.yaml cannot be") for text in (b"a: [1", b"\x00\xff", b"")),
    *(("config.yaml", text, "config.yaml cannot be") for text in (b"a: !mine 1", b"a: &a [*a]")),
    ("config.yaml", b"[" * 99999, "config.yaml cannot be"),
    ("config.yaml", b"a: 1", "config.yaml.seed: expected a value"),
    ("config.yaml", None, "config.yaml cannot be"),
    ("provenance.json", b'{"commit": "c', "provenance.json cannot be read"),
    ("provenance.json", b"[" * 99999, "provenance.json cannot be read"),
    ("provenance.json", b'{"commit": "\\ud800"}', "provenance.json cannot be read"),
    ("provenance.json", b'{"commit": "c"}', "provenance.json.dirty: expected a value"),
    ("provenance.json", b"[]", "provenance.json: "),
    ("metrics.json", b"{}", "KeyError: 'leak'"),
    ("metrics.json", b"[]", "TypeError"),
    ("predictions.csv", b"image_id,lesion_id\n", "predictions.csv: the columns are"),
    ("predictions.csv", b"\x00\xff", "predictions.csv cannot be read"),
    *((name, None, name) for name in ("provenance.json", "metrics.json", "predictions.csv")),
]


def test_damaged_runs_are_named_and_stop_nothing(folder, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", draw_readable)
    job, named = folder.sweep("table4", *MOBILE).jobs[0], {}
    for number, (name, content, why) in enumerate(DAMAGED):
        damaged = folder.add(job, key=f"damaged{number}")
        (damaged / name).unlink()
        if content is not None:
            (damaged / name).write_bytes(content)
        named[damaged] = why
    words, page = ["table4", *MOBILE, f"machine.runs={folder.path}"], tmp_path / "report.html"
    for command in (
        ["tables", *words, "--out", str(tmp_path)],
        ["report", *words, "--out", str(page)],
        ["collect", str(folder.path), str(tmp_path / "kept")],
    ):
        main(command)
        printed = capsys.readouterr().err.splitlines()
        for path, why in named.items():
            place = str(path.relative_to(folder.path))
            assert any(place in line and why in line for line in printed), (command, place)
    assert "1 x 40" in (tmp_path / "table4.md").read_text()
    assert 'data-protocol="image"' in page.read_text()
    assert [path.parent for path in (tmp_path / "kept").rglob("DONE")] == [
        tmp_path / "kept" / run.relative_to(folder.path)
    ]
    main(["figures", str(folder.path)])
    printed = capsys.readouterr()
    assert f"{run / 'figures'}: 2 figures" in printed.out
    assert len(printed.err.splitlines()) == 10  # of config or predictions
    with pytest.raises(SystemExit, match=r"predictions\.csv"):
        main(["compare", str(run), str([*named][-1])])


def test_a_run_without_git_and_with_an_odd_provenance_is_shown(folder, tmp_path):
    odd = {"commit": None, "training_seconds": float("nan"), "commits": [None, {}]}
    folder.add(folder.sweep("table4", *MOBILE).jobs[0], **odd)
    words = ["table4", *MOBILE, f"machine.runs={folder.path}"]
    main(["tables", *words, "--out", str(tmp_path)])
    main(["report", *words, "--no-figures", "--out", str(tmp_path / "report.html")])
    assert "commits: unknown" in (tmp_path / "table4.md").read_text()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=os.strerror)
@pytest.mark.parametrize("command", ["tables", "report", "collect"])
def test_what_a_disk_refuses_is_one_line_and_leaves_earlier_files_whole(
    folder, run, tmp_path, monkeypatch, command, code
):
    words = [command, "table4", *MOBILE, f"machine.runs={folder.path}"]
    words += ["--no-figures"] if command == "report" else []
    if command == "collect":
        words = [command, str(folder.path), str(tmp_path / "out")]
    else:
        words += ["--out", str(tmp_path / "out" / "report.html")]
    main(words)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert os.strerror(code) in str(stopped.value)
    assert len(str(stopped.value).splitlines()) == 1
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


def test_a_collection_gives_the_same_table_and_names_no_path(folder, run, tmp_path, capsys):
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


def test_two_runs_are_compared(folder, capsys):
    jobs = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0").jobs
    a, b = (folder.add(job, right) for job, right in zip(jobs, (0.7, 0.9), strict=True))
    main(["compare", str(a), str(b)])
    lines = capsys.readouterr().out.splitlines()
    (accuracy,) = (line for line in lines if line.startswith("accuracy"))
    assert accuracy.split()[1:4] == ["0.700", "0.900", "+0.200"]


def test_the_figures_of_a_run_or_of_a_folder_are_drawn(folder, run, monkeypatch, capsys):
    monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", draw)
    for folders in (run, folder.path):
        main(["figures", str(folders)])
        assert f"{run / 'figures'}: 2 figures" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is no finished run and holds none"):
        main(["figures", str(run / "figures")])


def test_a_report_is_written(folder, run, monkeypatch, capsys):
    seen = []

    def see(directory, data):
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
        (["tables", "table4", "optimiser.lr=1"], "there is no 'optimiser.lr' in the config"),
        (["report", "table4", *MOBILE, "machine.runs=nowhere"], "holds no finished run that can"),
        (["compare", "nowhere", "elsewhere"], "nowhere has neither predictions.csv"),
        (["collect", "nowhere", "elsewhere"], "holds no finished run: there is nothing to"),
    ],
)
def test_wrong_input_is_one_message(arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert message in str(stopped.value)
