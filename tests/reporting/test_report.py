"""The report: one page of every run, as a person opens it."""

import json
import os
import re

import pytest
from omegaconf import OmegaConf

import skinlesion.reporting.figures
from skinlesion.errors import SkinlesionError
from skinlesion.reporting.report import add_figures, collect_report, report_page
from skinlesion.reporting.results import Results
from skinlesion.runs.predictions import read_predictions, write_predictions
from tests.reporting.conftest import Folder, draw

TWO = "experiment=md_mobilenet_v2,md_resnet50"
ONE = ("table4", "experiment=md_mobilenet_v2", "seed=0")


@pytest.fixture
def jobs(folder):
    """By image and by lesion MobileNetV2, then the same of Resnet50; one seed."""
    return folder.sweep("leakage", TWO, "seed=0").jobs


def page_of(folder, *sweeps):
    named = [folder.sweep(*words) for words in sweeps or (ONE,)]
    return report_page(collect_report(named, every_table=bool(sweeps)))


def test_published_cell_own_value_and_difference_are_in_the_page(folder):
    folder.add(folder.sweep(*ONE).jobs[0], right=0.9)
    html = page_of(folder, ("table4", TWO, "seed=0"))
    (row,) = re.findall(r"<tr[^>]*>\s*<th[^>]*>Mobile<wbr>Net<wbr>V2</th>.*?</tr>", html, re.S)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[:3] == ["0.81", "0.809", "0.900"]
    assert cells[4:] == ["+0.090", "1 x 40"]
    (other,) = re.findall(r"<tr[^>]*>\s*<th[^>]*>Resnet50</th>.*?</tr>", html, re.S)
    assert "not run" in other


def test_without_a_name_the_tables_with_a_finished_run_are_shown(folder, jobs):
    folder.add(jobs[0])
    rows = {"table3": "ad_vgg16", "table4": "md_mobilenet_v2", "table8": "md_mobilenet_v2"}
    sweeps = [folder.sweep(name, f"experiment={row}", "seed=0") for name, row in rows.items()]
    shown = collect_report(sweeps, every_table=False).tables
    assert [table.name for table in shown] == ["table4", "table8"]
    assert [t.name for t in collect_report(sweeps, every_table=True).tables] == [*rows]


def test_hostile_text_is_escaped_and_no_interpolation_is_resolved(folder, jobs):
    hostile = "</pre><script>alert(1)</script>"
    run = folder.add(jobs[0], platform=hostile)
    config = OmegaConf.load(run / "config.yaml")
    config.attention.name = hostile
    config.note = "${oc.env:HOME}"
    OmegaConf.save(config, run / "config.yaml")
    html = page_of(folder)
    assert html.count("<script>") == 1  # the page's own
    assert html.count("&lt;script&gt;alert(1)") >= 3  # table, choices, provenance, config
    assert "${oc.env:HOME}" in html
    assert not re.findall(r"https?://(?!doi\.org)", html)  # it needs nothing from elsewhere


def test_runs_that_are_unfinished_or_of_no_sweep(folder, jobs):
    folder.add(jobs[1])  # by lesion
    unfinished = folder.add(jobs[2])
    (unfinished / "DONE").unlink()
    report = collect_report([folder.sweep(*ONE)], every_table=False)
    why = "unfinished, 1 epochs trained"
    assert report.left_out == {unfinished.relative_to(folder.path): why}
    assert "None of these runs is of a sweep as it was asked for" in report_page(report)


def test_runs_of_other_classes_follow_their_own(folder, jobs):
    folder.add(jobs[0])
    other = folder.add(jobs[2], data="f" * 64)
    frame = read_predictions(other / "predictions.csv").frame
    frame = frame[["image_id", "lesion_id", "split"]].assign(
        label=["benign", "malignant"] * 20, benign=0.75, malignant=0.25
    )
    write_predictions(frame, other / "predictions.csv")
    html = page_of(folder, ("table5", TWO, "seed=0"))
    section = html[html.index(f'id="resnet50-{other.parent.name}-seed0"') :]
    (metrics,) = re.findall(r'<table class="classes">.*?</table>', section, re.S)
    assert re.findall(r'<th scope="row">(.*?)</th>', metrics) == [
        *("benign", "malignant", "macro mean", "sd over classes")
    ]


def test_a_run_says_where_it_differs_from_the_default(folder):
    sweep = (*ONE[:2], "seed=1", "batch_size=7")
    folder.add(folder.sweep(*sweep).jobs[0])
    (table,) = re.findall(r'<table class="differences">.*?</table>', page_of(folder, sweep), re.S)
    rows = re.findall(r"<code>(.*?)</code></th><td.*?>(.*?)</td><td.*?>(.*?)</td>", table)
    assert rows == [("batch_size", "7", "32")]


def test_equal_splits_share_a_line_of_the_leakage(folder, jobs):
    for job, run in zip(jobs, [folder.add(job) for job in jobs], strict=True):
        part = "test" if job.config.split.name == "lesion" else "val"
        by_class = {"mel": {"images": 8, "leaked": 2, "share": 0.25}}
        leak = {
            part: {
                "images": 40,
                "leaked": 10,
                "share": 0.25,
                "per_class": by_class,
                "near_copies": 1,
            }
        }
        (run / "metrics.json").write_text(json.dumps({"leak": leak}))
    html = page_of(folder)
    section = html[html.index('id="leakage-of-the-splits"') :]
    rows = re.findall(r"<tr data-protocol.*?</tr>", section, re.S)
    assert [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows] == [
        [protocol, part, "2", "40", "10", "25 %", "1", "2 of 8 (25 %)"]
        for protocol, part in (("by image", "val"), ("by lesion", "test"))
    ]


def test_figures_are_drawn_where_there_are_none_or_older_ones(folder, jobs, monkeypatch):
    new, drawn, outdated, failing = (folder.add(job) for job in jobs)
    results = {run.directory.path: run.directory for run in Results(folder.path).every_run()}
    for run in (drawn, outdated):
        draw(results[run])
    os.utime(outdated / "predictions.csv", (2e9, 2e9))
    seen = []

    def see(directory, data):
        if directory.path == failing:
            raise SkinlesionError("the history has no rows")
        seen.append(directory.path)
        return draw(directory)

    monkeypatch.setattr(skinlesion.reporting.figures, "draw_run_figures", see)
    report = collect_report([folder.sweep(*ONE)], every_table=True)
    add_figures(report, None)
    assert sorted(seen) == sorted([new, outdated])
    html = report_page(report)
    assert html.count("data:image/webp;base64,") == 6
    assert "The figures could not be drawn: the history has no rows" in html


# In a browser


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of four runs, their accuracies all different, with figures."""
    folder = Folder(tmp_path_factory.mktemp("report") / "runs")
    leakage = folder.sweep("leakage", TWO, "seed=0")
    for job, right in zip(leakage.jobs, (0.9, 0.6, 0.8, 0.7), strict=True):
        folder.add(job, right)
    three = folder.sweep("table4", f"{TWO},md_resnet152", "seed=0")
    report = collect_report([three, leakage], every_table=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skinlesion.reporting.figures, "draw_run_figures", draw)
        add_figures(report, None)
    (folder.path / "report.html").write_text(report_page(report))
    return folder.path / "report.html"


@pytest.fixture
def opened(written, browser):
    """Open the report: a function that takes a fragment and options of the browser."""
    contexts = []

    def open_(fragment="", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.messages = []
        page.on("console", lambda message: page.messages.append(message.text))
        page.on("pageerror", lambda error: page.messages.append(str(error)))
        page.on("request", lambda request: page.messages.append(request.url))
        page.goto(written.as_uri() + fragment)
        return page

    yield open_
    for context in contexts:
        context.close()


def column(page, section, heading):
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


def press(page, section, heading):
    """Press a heading and return the order that it then says."""
    button = page.locator(f"#{section} th button", has_text=re.compile(f"^{heading}$")).first
    button.press("Enter")
    return button.locator("xpath=..").get_attribute("aria-sort")


def test_it_opens_without_errors_asks_for_nothing_and_enlarges_figures(opened, written):
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
    own = written.as_uri()
    assert [url for url in page.messages if url != own and not url.startswith("data:")] == []


def test_tables_are_sorted_up_and_down_with_what_is_not_run_last(opened):
    page = opened()
    assert press(page, "all-runs", "accuracy") == "ascending"
    assert column(page, "all-runs", "accuracy") == ["0.600", "0.700", "0.800", "0.900"]
    assert press(page, "all-runs", "accuracy") == "descending"
    assert column(page, "all-runs", "accuracy") == ["0.900", "0.800", "0.700", "0.600"]
    assert press(page, "all-runs", "backbone") == "ascending"
    assert page.locator("#all-runs th[aria-sort]").count() == 1
    backbones = column(page, "all-runs", "backbone")
    assert backbones == sorted(backbones)
    for order, first in (("ascending", "0.800"), ("descending", "0.900")):
        assert press(page, "table4", "ours, accuracy") == order
        ours = column(page, "table4", "ours, accuracy")
        assert (ours[0], ours[2:]) == (first, ["not run"])


def test_a_block_is_sorted_as_a_whole(opened):
    page = opened()

    def blocks():
        bodies = page.locator("#leakage tbody").all()
        return [re.findall(r"[\w.%-]+(?: [\w.%-]+)*", body.inner_text()) for body in bodies]

    before = blocks()
    assert press(page, "leakage", "accuracy") == "ascending"
    after = blocks()
    assert sorted(after) == sorted(before) != after
    assert [block[0] for block in after[:2]] == ["Resnet50", "MobileNetV2"]


def test_the_filter_shows_one_protocol_and_a_link_unfolds_its_run(opened):
    page = opened()
    page.get_by_label("by lesion", exact=True).check()
    assert set(column(page, "all-runs", "protocol")) == {"by lesion"}
    assert page.locator(".filter output").inner_text() == "2 of 4 runs"
    assert page.locator("article:visible").count() == 2
    link = page.locator("#all-runs tbody tr:not([hidden]) a").last
    link.click()
    target = link.get_attribute("href").removeprefix("#")
    page.wait_for_selector(f"[id='{target}'] > details[open]")
    assert page.locator(f"[id='{target}']").bounding_box()["y"] < 100
    # Opened from elsewhere, too.
    again = opened(f"#{target}")
    again.wait_for_selector(f"[id='{target}'] > details[open]")
    assert again.locator("article > details[open]").count() == 1


def test_a_dark_phone_gets_a_dark_page_that_scrolls_tables_and_not_itself(opened):
    page = opened(viewport={"width": 390, "height": 844}, color_scheme="dark")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", colour)[:3])) < 100
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    scroll = page.locator("#all-runs .scroll")
    assert scroll.evaluate("box => box.scrollWidth > box.clientWidth")
    scroll.evaluate("box => { box.scrollLeft = 500; }")
    first = page.locator("#all-runs tbody th").first.bounding_box()
    assert first["x"] >= scroll.bounding_box()["x"]  # the first column stays
