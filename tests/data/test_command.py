"""`python -m skinlesion.data`."""

from pathlib import Path

import pytest

from skinlesion.data import download
from skinlesion.data.__main__ import main


def test_demo_draws_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--root", str(tmp_path / "demo"), "--images", "80"])
    assert (tmp_path / "demo" / "HAM10000_metadata.csv").is_file()
    assert capsys.readouterr().out.strip() == str(tmp_path / "demo")


def test_download_fetches_into_the_folder_that_the_readme_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def fetch(root: Path, *, server: str) -> list[Path]:
        asked.append((root, server))
        return [root / "HAM10000_metadata.csv"]

    monkeypatch.setattr(download, "download", fetch)
    main(["download"])
    assert asked == [(Path("data/ham10000"), "https://dataverse.harvard.edu")]
    assert "HAM10000_metadata.csv" in capsys.readouterr().out


def test_without_a_command_the_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "download,demo" in capsys.readouterr().err
