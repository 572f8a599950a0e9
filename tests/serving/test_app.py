"""The page in a real browser, served by the real command, and what the server refuses."""

import base64
import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import requests
from PIL import Image

from skinlesion.app import main
from skinlesion.data.archive import ImageArchive
from skinlesion.errors import SkinlesionError
from skinlesion.serving import answer
from skinlesion.serving.model import LesionModel, load_run
from skinlesion.serving.server import build_application, serve
from skinlesion.serving.uploads import private_folder, read_upload

pytest.importorskip("gradio")


@dataclass
class Running:
    """The command at work."""

    process: subprocess.Popen[str]
    address: str
    temporary: Path
    errors: Path

    def files(self) -> list[Path]:
        """What lies in its private folder."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def app(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    temporary = tmp_path_factory.mktemp("tmp")
    errors = tmp_path_factory.mktemp("log") / "stderr"
    process = subprocess.Popen(
        [sys.executable, "-m", "skinlesion.app", str(trained), "--port", "0"],
        env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=errors.open("w"),
        text=True,
        # As from a terminal: a shell that runs tests in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:"), errors.read_text()
    yield Running(process, line.split()[0], temporary, errors)
    process.kill()
    process.wait()


@pytest.fixture
def page(app: Running, browser: Any) -> Iterator[Any]:
    """The page at a phone's width; it must ask nobody else and complain of nothing."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((app.address, "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    # Gradio asks how far an upload is, which is an error if it has ended by then.
    done = {"content_type": "text/event-stream", "body": 'data: {"msg": "done"}\n\n'}
    page.route("**/upload_progress*", lambda route: route.fulfill(**done))
    page.goto(app.address)
    page.wait_for_selector(".sl-warning")
    yield page
    assert wrong == []
    context.close()


@pytest.fixture(scope="module")
def model(trained: Path) -> LesionModel:
    return load_run(trained)


@pytest.fixture(scope="module")
def jpeg(archive: Path) -> bytes:
    """A photograph that knows where it was taken."""
    table = pd.read_csv(archive / "HAM10000_metadata.csv")
    picture = Image.open(io.BytesIO(ImageArchive(archive).read(table["image_id"][0])))
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 30.0)  # GPS latitude
    exif[0x010E] = "HERE"
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def upload(page: Any, name: str, content: bytes) -> None:
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": content}
    )


def choose(page: Any, field: str, value: str) -> None:
    page.get_by_label(field).click()
    page.get_by_role("option", name=value, exact=True).click()


def classify(page: Any) -> None:
    page.get_by_role("button", name="Classify").click()


def table(page: Any) -> dict[str, tuple[str, str]]:
    """Class → calibrated and raw probability, as the answer says them."""
    rows = page.locator(".sl-answer tbody tr")
    cells = [row.locator("th, td").all_text_contents() for row in rows.all()]
    return {name: (calibrated, raw) for name, calibrated, raw in cells}


def figures(prediction: Any) -> dict[str, tuple[str, str]]:
    return {
        name: (f"{p:.4f}", f"{prediction.raw[name]:.4f}")
        for name, p in prediction.probabilities.items()
    }


def test_an_image_with_metadata_gives_the_models_answer_and_where_it_looks(
    page: Any, app: Running, model: LesionModel, jpeg: bytes
) -> None:
    upload(page, "lesion.jpg", jpeg)
    page.wait_for_selector(".sl-preview img")
    page.get_by_label("age").fill("45")
    choose(page, "sex", "male")
    choose(page, "localization", "back")
    classify(page)
    page.wait_for_selector(".sl-answer")

    expected = model.predict(jpeg, age=45, sex="male", localization="back")
    assert table(page) == figures(expected)
    bars = page.locator(".sl-bars li")
    assert bars.count() == 7
    first = page.locator(".sl-bars .sl-first")
    assert first.get_attribute("data-class") == expected.label
    assert f"{100 * expected.probabilities[expected.label]:.1f} %" in first.inner_text()
    assert "melanoma (mel)" in page.locator(".sl-bars").inner_text()
    assert "Not used" not in page.locator(".sl-given").inner_text()
    titles = page.locator(".sl-pictures figcaption > b").all_text_contents()
    assert titles == ["What it sees", "Soft attention", f"Grad-CAM for {expected.label}"]
    assert page.locator(".sl-pictures img").count() == 3
    page.wait_for_function(
        "size => [...document.querySelectorAll('.sl-pictures img')]"
        ".every(image => image.naturalWidth === size)",
        arg=model.size,
    )
    assert app.files() == []


def test_what_is_not_given_is_not_used_and_the_answer_says_so(
    page: Any, model: LesionModel, jpeg: bytes
) -> None:
    upload(page, "lesion.jpg", jpeg)
    page.wait_for_selector(".sl-preview img")
    assert page.get_by_label("age").input_value() == ""
    classify(page)
    page.wait_for_selector(".sl-answer")

    said = page.locator(".sl-given").inner_text()
    assert said.endswith("Not used, because unknown: age, sex and localization.")
    assert table(page) == figures(model.predict(jpeg))


def test_a_sample_fills_the_page_and_can_be_classified(page: Any, model: LesionModel) -> None:
    buttons = page.locator(".sl-samples button")
    assert buttons.all_text_contents() == list(model.classes)
    buttons.nth(4).click()
    page.wait_for_selector(".sl-preview img")
    assert "Drawing of mel" in page.locator(".sl-preview").inner_text()
    age = page.get_by_label("age").element_handle()
    page.wait_for_function("field => field.value !== ''", arg=age)
    classify(page)
    page.wait_for_selector(".sl-answer")
    width = page.evaluate("document.scrollingElement.scrollWidth")
    assert width == 390, "the page is wider than a phone"


def test_what_is_no_image_is_refused_in_words(page: Any, app: Running) -> None:
    classify(page)
    page.wait_for_selector("text=There is no image yet")
    upload(page, "<b>notes</b>.jpg", b"no picture at all")
    message = page.locator(".sl-shown [role=alert]").inner_text()
    assert "is no image of JPEG, PNG, WEBP" in message
    assert str(app.temporary) not in message
    assert app.files() == []


def test_a_value_out_of_range_is_refused_in_words(page: Any) -> None:
    page.locator(".sl-samples button").first.click()
    page.wait_for_selector(".sl-preview img")
    page.get_by_label("age").fill("200")
    classify(page)
    page.wait_for_selector("text=age=200: expected a number from 0 to 120")


def test_a_file_of_40_mb_is_refused_by_the_page_and_by_the_server(
    page: Any, app: Running, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(40_000_000))
    page.set_input_files("input[type=file]", large)
    page.wait_for_selector("text=maximum allowed size of 30")
    with large.open("rb") as file:
        reply = requests.post(f"{app.address}/gradio_api/upload", files={"files": file}, timeout=20)
    assert reply.status_code == 413
    assert app.files() == []


def test_the_page_says_what_it_is_and_what_the_model_is(page: Any) -> None:
    warning = page.locator(".sl-warning").inner_text()
    assert "Research software. No medical device. It says nothing about your skin." in warning
    assert "dermoscopic" in warning
    assert "even for a picture of a cat" in warning
    about = page.locator(".sl-about").inner_text()
    assert "mobilenet_v3_small, with soft attention" in about
    assert "no photograph of a held-out lesion was trained on" in about
    assert re.search(
        r"Held-out accuracy\s+\d+\.\d %, balanced \d+\.\d %, on \d+ test images", about
    )


def test_the_server_gives_nothing_away(app: Running, tmp_path: Path) -> None:
    (folder,) = app.temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (f"gradio_api/file={secret}", "docs", "openapi.json", "monitoring"):
        assert requests.get(f"{app.address}/{path}", timeout=5).status_code in (403, 404), path
    # A site that gives its own name this address.
    reply = requests.get(app.address, headers={"Host": "elsewhere.example"}, timeout=5)
    assert reply.status_code == 400
    assert (
        "default-src 'self'"
        in requests.get(app.address, timeout=5).headers["Content-Security-Policy"]
    )


def test_the_server_downloads_nothing_for_a_visitor(app: Running) -> None:
    config = requests.get(f"{app.address}/config", timeout=5).json()
    (take,) = [d for d in config["dependencies"] if d["api_name"] == "take"]
    file = {"path": "http://192.0.2.1/x.jpg", "meta": {"_type": "gradio.FileData"}}
    joined = {"data": [file], "fn_index": take["id"], "session_hash": "a"}
    requests.post(f"{app.address}/gradio_api/queue/join", json=joined, timeout=5)
    with requests.get(
        f"{app.address}/gradio_api/queue/data?session_hash=a", stream=True, timeout=5
    ) as events:
        last = [line for line in events.iter_lines(decode_unicode=True) if "completed" in line]
    assert '"success":false' in last[0]
    assert "http://192.0.2.1/x.jpg is not fetched" in app.errors.read_text()


def test_ctrl_c_stops_it_quietly_and_leaves_nothing(app: Running) -> None:
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(timeout=20) == 0
    assert app.process.stdout is not None
    assert app.process.stdout.read().strip() == ""
    assert "Interrupt" not in app.errors.read_text()
    assert list(app.temporary.iterdir()) == []


def test_an_upload_is_deleted_and_no_other_file_is_touched(tmp_path: Path, jpeg: bytes) -> None:
    other = tmp_path / "own" / "lesion.jpg"
    other.parent.mkdir()
    other.write_bytes(jpeg)
    with private_folder() as uploads:
        sent = uploads / "digest" / "lesion.jpg"
        sent.parent.mkdir()
        sent.write_bytes(jpeg)
        (uploads / "loose.jpg").write_bytes(jpeg)
        image, name = read_upload({"path": str(sent), "orig_name": "mine.jpg"}, uploads)
        assert (image.shape, name) == ((72, 96, 3), "mine.jpg")
        assert not sent.exists()
        sideways = uploads / "digest" / ".." / ".." / other.relative_to(other.parents[2])
        for path in (sent, other, uploads / "loose.jpg", uploads, sideways):
            with pytest.raises(SkinlesionError, match="did not arrive"):
                read_upload({"path": str(path)}, uploads)
        with pytest.raises(SkinlesionError, match="did not arrive"):
            read_upload(None, uploads)
        assert (uploads / "loose.jpg").exists()
    assert other.exists()
    assert not uploads.exists()


def test_what_a_camera_wrote_into_a_file_is_not_shown_again(tmp_path: Path, jpeg: bytes) -> None:
    assert b"HERE" in jpeg
    sent = tmp_path / "digest" / "lesion.jpg"
    sent.parent.mkdir()
    sent.write_bytes(jpeg)
    image, _ = read_upload({"path": str(sent)}, tmp_path)
    shown = answer.preview(image, "<i>lesion</i>")
    found = re.search(r"base64,([^\"]+)", shown)
    assert found is not None
    picture = base64.b64decode(found[1])
    assert b"HERE" not in picture
    assert b"Exif" not in picture
    assert "<i>" not in shown.replace("&lt;i&gt;", "")


def test_a_model_of_other_classes_does_not_speak_of_dermoscopy() -> None:
    other: Any = SimpleNamespace(classes=("round", "square", "other"))
    assert "dermoscopic" not in answer.warning(other)
    assert "one of its 3 classes" in answer.warning(other)
    assert answer.full_name("round") == "round"


def test_another_host_is_warned_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SkinlesionError, match="no such run"):
        main([str(tmp_path / "none"), "--host", "0.0.0.0"])
    assert "Nothing is authenticated or encrypted" in capsys.readouterr().err
    with pytest.raises(SkinlesionError, match="no such run"):
        main([str(tmp_path / "none")])
    assert capsys.readouterr().err == ""


def test_a_port_in_use_is_one_clear_error(model: LesionModel, trained: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SkinlesionError, match=r"cannot be had .* choose another with --port"),
    ):
        serve(model, trained, "127.0.0.1", taken.getsockname()[1], show=False)


def test_without_gradio_the_error_names_what_to_install(
    model: LesionModel, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SkinlesionError, match=r"pip install 'skinlesion\[app\]'"):
        build_application(model, trained, tmp_path, "127.0.0.1")
