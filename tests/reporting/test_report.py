"""The report: one page of every run, as a person opens it."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

import skinlesion.reporting.figures
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions, write_predictions
from skinlesion.reporting.__main__ import main
from skinlesion.reporting.markup import Html, tag
from tests.reporting.conftest import Folder

TWO = "experiment=md_mobilenet_v2,md_resnet50"
ONE = ("table4", "experiment=md_mobilenet_v2", "seed=0")  # composing more takes seconds


def draw(directory: Any, data_root: Path | None = None) -> list[Path]:
    """Stand in for the figures, which have tests of their own."""
    directory.figures.mkdir(exist_ok=True)
    paths = [directory.figures / f"{name}.png" for name in ("learning_curves", "roc_val")]
    for path in paths:
        Image.new("RGB", (60, 40), "orange").save(path)
    return paths


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a function in the place of the one that draws figures."""

    def instead(function: Callable[..., list[Path]]) -> None:
        monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", function)

    instead(draw)
    return instead


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """By image and by lesion MobileNetV2, then the same of Resnet50; one seed."""
    return [*Folder(tmp_path_factory.mktemp("any")).sweep("leakage", TWO, "seed=0").jobs]


def report(folder: Folder, *words: str) -> str:
    main(["report", *words, f"machine.runs={folder.path}", "--no-figures"])
    return (folder.path / "report.html").read_text()


def test_published_cell_own_value_and_difference_are_in_the_page(folder: Folder) -> None:
    folder.add(folder.sweep(*ONE).jobs[0], right=0.9)
    html = report(folder, "table4", TWO, "seed=0")
    (row,) = re.findall(r"<tr[^>]*><th[^>]*>Mobile<wbr>Net<wbr>V2</th>.*?</tr>", html)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[:3] == ["0.81", "0.809", "0.900"]
    assert cells[4:] == ["+0.090", "1 x 40"]
    (other,) = re.findall(r"<tr[^>]*><th[^>]*>Resnet50</th>.*?</tr>", html)
    assert "not run" in other


def test_without_a_name_the_tables_with_a_finished_run_are_shown(
    folder: Folder, jobs, monkeypatch
) -> None:
    monkeypatch.setattr("skinlesion.reporting.report.names", lambda: ["table3", "table4", "table8"])
    folder.add(jobs[0])
    shown = re.findall(r'<section id="(table.)"', report(folder, "seed=0"))
    assert shown == ["table4", "table8"]  # both have a row of MobileNetV2
    assert 'id="table3"' in report(folder, "table3", "seed=0")


def test_sweeps_that_lack_an_overridden_key_are_passed_over(folder: Folder, monkeypatch) -> None:
    monkeypatch.setattr("skinlesion.reporting.report.names", lambda: ["table3", "table4"])
    overrides = ["seed=0", "scheduler.patience=2"]  # Table 3's runs have no schedule
    folder.add(folder.sweep("table4", "experiment=md_mobilenet_v2", *overrides).jobs[0])
    assert 'id="table4"' in report(folder, *overrides)


def test_runs_of_no_sweep_are_shown_without_a_table(folder: Folder, jobs, monkeypatch) -> None:
    monkeypatch.setattr("skinlesion.reporting.report.names", lambda: ["table4"])
    folder.add(jobs[1])  # by lesion
    html = report(folder, "seed=0")
    assert "None of these runs is of a sweep as it was asked for" in html
    assert len(re.findall("<article", html)) == 1


def test_a_misspelt_override_is_one_message_with_what_is_near(folder: Folder) -> None:
    for words in (["report", "table4"], ["tables", "table4"]):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "optimiser.lr=1", f"machine.runs={folder.path}"])
        assert "there is no 'optimiser.lr' in the config" in str(stopped.value)
        assert "optimizer.lr" in str(stopped.value)


def test_no_run_is_one_message(folder: Folder) -> None:
    with pytest.raises(SystemExit, match=r"holds no finished run that can be read"):
        main(["report", *ONE, f"machine.runs={folder.path}"])


def test_hostile_text_is_escaped(folder: Folder, jobs) -> None:
    hostile = "</pre><script>alert(1)</script>"
    run = folder.add(jobs[0], platform=hostile)
    config = OmegaConf.load(run / "config.yaml")
    config.attention.name = hostile
    OmegaConf.save(config, run / "config.yaml")
    html = report(folder, *ONE)
    assert html.count("<script>") == 1  # the page's own
    assert html.count("&lt;script&gt;alert(1)") >= 3  # table, choices, provenance, config


def test_a_tag_escapes_text_and_attributes_and_keeps_html() -> None:
    assert tag("td", "a < b", Html("<br>"), title='"', hidden=False) == (
        '<td title="&quot;">a &lt; b<br></td>'
    )


def test_damaged_and_unfinished_runs_are_named_and_do_not_stop_the_page(
    folder: Folder, jobs, capsys
) -> None:
    good, json_cut, predictions_cut, unfinished = (folder.add(job) for job in jobs)
    no_number = folder.add(jobs[0], key="other", parameters=None)
    (json_cut / "provenance.json").write_text('{"commit": "c')
    (predictions_cut / "predictions.csv").write_text("image_id,lesion_id\n")
    (unfinished / "DONE").unlink()
    (folder.path / "resnet50" / "bare" / "seed3").mkdir(parents=True)
    broken = folder.path / "resnet50" / "broken" / "seed4"
    broken.mkdir(parents=True)
    (broken / "config.yaml").write_text("a: [1")
    (broken / "DONE").touch()
    html = report(folder, "leakage", TWO, "seed=0")
    assert len(re.findall(r"<article", html)) == 1
    assert f"{good.parent.name}/seed0" in html
    said = dict(re.findall(r"<li><code>(.*?)</code>: (.*?)</li>", html))
    said = {Path(path): why for path, why in said.items()}
    assert "provenance.json cannot be read" in said[json_cut.relative_to(folder.path)]
    assert said[no_number.relative_to(folder.path)].startswith("TypeError: float() argument")
    assert "predictions.csv: the columns are" in said[predictions_cut.relative_to(folder.path)]
    assert said[unfinished.relative_to(folder.path)] == "unfinished, 1 epochs trained"
    assert said[Path("resnet50/bare/seed3")] == "unfinished, 0 epochs trained"
    assert "config.yaml cannot be read" in said[Path("resnet50/broken/seed4")]
    assert "left out: resnet50/broken/seed4" in capsys.readouterr().err


def test_runs_of_other_classes_follow_their_own(folder: Folder, jobs) -> None:
    folder.add(jobs[0])
    other = folder.add(jobs[2], data="f" * 64)
    frame = read_predictions(other / "predictions.csv").frame
    frame = frame[["image_id", "lesion_id", "split"]].assign(
        label=["benign", "malignant"] * 20, benign=0.75, malignant=0.25
    )
    write_predictions(frame, other / "predictions.csv")
    html = report(folder, "table5", "leakage", TWO, "seed=0")
    section = html[html.index(f'id="resnet50-{other.parent.name}-seed0"') :]
    (metrics,) = re.findall(r'<table class="classes">.*?</table>', section, re.S)
    assert re.findall(r'<th scope="row">(.*?)</th>', metrics) == [
        *("benign", "malignant", "macro mean", "sd over classes")
    ]


def test_a_run_says_where_it_differs_from_the_default(folder: Folder) -> None:
    folder.add(folder.sweep(*ONE[:2], "seed=1", "batch_size=7").jobs[0])
    html = report(folder, *ONE[:2], "seed=1", "batch_size=7")
    (table,) = re.findall(r'<table class="differences">.*?</table>', html, re.S)
    rows = re.findall(r"<code>(.*?)</code></th><td.*?>(.*?)</td><td.*?>(.*?)</td>", table)
    assert rows == [("batch_size", "7", "32")]


def test_equal_splits_share_a_line_of_the_leakage(folder: Folder, jobs) -> None:
    for job, run in zip(jobs, [folder.add(job) for job in jobs], strict=True):
        part = "test" if job.config.split.name == "lesion" else "val"
        by_class = {"mel": {"images": 8, "leaked": 2, "share": 0.25}}
        leak = {part: {"images": 40, "leaked": 10, "share": 0.25, "per_class": by_class}}
        (run / "metrics.json").write_text(json.dumps({"leak": leak}))
    html = report(folder, *ONE)
    section = html[html.index('id="leakage-of-the-splits"') :]
    rows = re.findall(r"<tr data-keys.*?</tr>", section)
    assert [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows] == [
        [protocol, part, "2", "40", "10", "25 %", "2 of 8 (25 %)"]
        for protocol, part in (("by image", "val"), ("by lesion", "test"))
    ]


def test_figures_are_drawn_where_there_are_none_or_older_ones(folder: Folder, jobs, figures):
    new, drawn, outdated = (folder.add(job) for job in jobs[:3])
    seen = []
    for run in (drawn, outdated):
        draw(SimpleNamespace(figures=run / "figures"))
    os.utime(outdated / "predictions.csv", (2e9, 2e9))
    figures(lambda directory, data: seen.append((directory.path, data)) or draw(directory))
    main(["report", *ONE, f"machine.runs={folder.path}", "--data", "images"])
    assert sorted(seen) == sorted([(new, Path("images")), (outdated, Path("images"))])
    html = (folder.path / "report.html").read_text()
    assert html.count("data:image/webp;base64,") == 6


def test_a_run_whose_figures_cannot_be_drawn_says_why(folder: Folder, jobs, figures) -> None:
    def fail(directory: Any, data: Path | None) -> list[Path]:
        raise SkinlesionError("the history has no rows")

    folder.add(jobs[0])
    figures(fail)
    main(["report", *ONE, f"machine.runs={folder.path}"])
    html = (folder.path / "report.html").read_text()
    assert "The figures could not be drawn: the history has no rows" in html


def test_the_command_figures_draws_those_of_a_run_or_of_a_folder(
    folder: Folder, jobs, figures, capsys
) -> None:
    runs = [folder.add(job) for job in jobs[:2]]
    main(["figures", str(runs[0])])
    assert (runs[0] / "figures" / "roc_val.png").exists()
    assert not (runs[1] / "figures").exists()
    main(["figures", str(folder.path)])
    assert (runs[1] / "figures" / "roc_val.png").exists()
    assert f"{runs[1] / 'figures'}: 2 figures" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is no finished run and holds none"):
        main(["figures", str(runs[0] / "figures")])


# In a browser


@pytest.fixture(scope="module")
def written(jobs, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A report of four runs, their accuracies all different, with figures."""
    folder = Folder(tmp_path_factory.mktemp("report") / "runs")
    rows = f"{TWO},md_resnet152"
    for job, right in zip(jobs, (0.9, 0.6, 0.8, 0.7), strict=True):
        run = folder.add(job, right)
        draw(SimpleNamespace(figures=run / "figures"))
    main(["report", "table4", "leakage", rows, "seed=0", f"machine.runs={folder.path}"])
    return folder


@pytest.fixture
def opened(written: Folder, browser: Any) -> Iterator[Callable[..., Any]]:
    """Open the report: a function that takes a fragment and options of the browser."""
    contexts = []

    def open_(fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.said.append(request.url))
        page.goto((written.path / "report.html").as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()


def column(page: Any, section: str, heading: str) -> list[str]:
    """Return the texts of a column of a section's table, in the order on the page."""
    return page.evaluate(
        """([section, heading]) => {
            const table = document.querySelector(`#${section} table`);
            const heads = [...table.tHead.querySelectorAll("th")].map((th) => th.innerText.trim());
            const column = heads.indexOf(heading);
            return [...table.tBodies[0].rows].filter((row) => !row.hidden)
                .map((row) => row.cells[column].innerText.split("\\n")[0]);
        }""",
        [section, heading],
    )


def press(page: Any, section: str, heading: str) -> str | None:
    """Press a heading and return the order that it then says."""
    button = page.locator(f"#{section} th button", has_text=re.compile(f"^{heading}$")).first
    button.press("Enter")
    return button.locator("xpath=..").get_attribute("aria-sort")


def test_it_opens_without_errors_and_asks_for_nothing(opened, written: Folder) -> None:
    page = opened()
    page.locator("article summary").first.click()
    page.wait_for_load_state()
    own = (written.path / "report.html").as_uri()
    assert [said for said in page.said if said != own and not said.startswith("data:")] == []


def test_all_runs_are_sorted_up_and_down_by_number(opened) -> None:
    page = opened()
    assert press(page, "all-runs", "accuracy") == "ascending"
    assert column(page, "all-runs", "accuracy") == ["0.600", "0.700", "0.800", "0.900"]
    assert press(page, "all-runs", "accuracy") == "descending"
    assert column(page, "all-runs", "accuracy") == ["0.900", "0.800", "0.700", "0.600"]
    assert press(page, "all-runs", "backbone") == "ascending"
    assert page.locator("#all-runs th[aria-sort]").count() == 1
    backbones = column(page, "all-runs", "backbone")
    assert backbones == sorted(backbones)


def test_what_is_not_run_stays_last_whichever_way(opened) -> None:
    page = opened()
    for order, first in (("ascending", "0.800"), ("descending", "0.900")):
        assert press(page, "table4", "ours, accuracy") == order
        ours = column(page, "table4", "ours, accuracy")
        assert ours[0] == first
        assert ours[2:] == ["not run"]


def test_a_block_is_sorted_as_a_whole(opened) -> None:
    page = opened()

    def blocks() -> list[list[str]]:
        bodies = page.locator("#leakage tbody").all()
        return [re.findall(r"[\w.%-]+(?: [\w.%-]+)*", body.inner_text()) for body in bodies]

    before = blocks()
    assert press(page, "leakage", "accuracy") == "ascending"
    after = blocks()
    assert after != before
    assert sorted(after) == sorted(before)
    assert [block[0] for block in after[:2]] == ["Resnet50", "MobileNetV2"]
    assert press(page, "leakage", "accuracy") == "descending"
    assert [block[0] for block in blocks()[:2]] == ["MobileNetV2", "Resnet50"]


def test_the_filter_shows_one_protocol(opened) -> None:
    page = opened()
    page.get_by_label("by lesion", exact=True).check()
    assert set(column(page, "all-runs", "protocol")) == {"by lesion"}
    assert page.locator(".filter output").inner_text() == "2 of 4 runs"
    assert page.locator("article:visible").count() == 2
    page.get_by_label("all", exact=True).check()
    assert len(column(page, "all-runs", "protocol")) == 4


def test_a_link_goes_to_its_run_and_unfolds_it(opened) -> None:
    page = opened()
    page.get_by_label("by image", exact=True).check()
    link = page.locator("#all-runs tbody a").last
    link.click()
    target = link.get_attribute("href").removeprefix("#")
    page.wait_for_selector(f"[id='{target}'] > details[open]")
    assert page.url.endswith(f"#{target}")
    assert page.locator(f"[id='{target}']").bounding_box()["y"] < 100
    # Opened from elsewhere, also one that the filter hides by then.
    again = opened(f"#{target}")
    again.wait_for_selector(f"[id='{target}'] > details[open]")
    assert again.locator("article > details[open]").count() == 1


def test_figures_load_and_can_be_enlarged(opened) -> None:
    page = opened()
    page.locator("article summary").first.click()
    picture = page.locator("article img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('article img').naturalWidth > 0")
    assert picture.get_attribute("alt").startswith("ROC curves, val, mobilenet_v2-")
    page.locator("article figure button").first.press("Enter")
    page.wait_for_function("document.querySelector('dialog img').naturalWidth === 60")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="hidden")


def test_dark_screens_get_a_dark_page(opened) -> None:
    def brightness(scheme: str) -> float:
        page = opened(color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("light") > 700
    assert brightness("dark") < 100


def test_a_phone_scrolls_tables_but_not_the_page(opened) -> None:
    page = opened(viewport={"width": 390, "height": 844})
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    scroll = page.locator("#all-runs .scroll")
    assert scroll.evaluate("box => box.scrollWidth > box.clientWidth")
    scroll.evaluate("box => { box.scrollLeft = 500; }")
    first = page.locator("#all-runs tbody th").first.bounding_box()
    assert first["x"] >= scroll.bounding_box()["x"]  # the first column stays
