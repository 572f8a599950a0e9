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
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from skinlesion.cli import main
from skinlesion.errors import SkinlesionError
from skinlesion.serving.app import build_application, serve

pytest.importorskip("gradio")
page_of = pytest.importorskip("skinlesion.serving.page")


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

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(f"{self.address}/{path}", timeout=30, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(f"{self.address}/gradio_api/{path}", timeout=30, **options)

    def send(self, content: bytes, **headers: str) -> requests.Response:
        return self.post("upload", files={"files": ("lesion.jpg", content)}, headers=headers)

    def endpoints(self) -> dict[str, Any]:
        """Name → what the page tells a browser of it."""
        return {each["api_name"]: each for each in self.get("config").json()["dependencies"]}

    def ask(self, name: str, data: list[Any], session: str = "a", event: Any = None) -> str:
        """What the queue answers, word for word."""
        body = {"data": data, "fn_index": self.endpoints()[name]["id"], "session_hash": session}
        reply = self.post("queue/join", json=body | {"event_data": event})
        if not reply.ok:
            return reply.text
        address = f"gradio_api/queue/data?session_hash={session}"
        with self.get(address, stream=True) as events:
            return "\n".join(events.iter_lines(decode_unicode=True))

    def fields(self) -> Iterator[tuple[str, int, int]]:
        """Each field that a visitor can fill in: endpoint, place, number of fields."""
        for name, endpoint in self.endpoints().items():
            for place in range(count := len(endpoint["inputs"])):
                yield name, place, count


@pytest.fixture(scope="module")
def app(trained, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("tmp")
    errors = tmp_path_factory.mktemp("log") / "stderr"
    process = subprocess.Popen(
        [sys.executable, "-m", "skinlesion", "app", str(trained), "--port", "0"],
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
def page(app, browser):
    """The page at a phone's width; it must ask nobody else and complain of nothing."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    wrong: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((app.address, "data:", "blob:")):
            wrong.append(request.url)

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", note)
    # Gradio asks how far an upload is, which is an error if it has ended by then.
    done = {"content_type": "text/event-stream", "body": 'data: {"msg": "done"}\n\n'}
    page.route("**/upload_progress*", lambda route: route.fulfill(**done))
    page.goto(app.address)
    page.wait_for_selector(".sl-warning")
    yield page
    assert wrong == []
    context.close()


@pytest.fixture(scope="module")
def jpeg(photo):
    """A photograph that knows where it was taken."""
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 30.0)  # GPS latitude
    exif[0x010E] = "HERE"
    file = io.BytesIO()
    Image.open(photo).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def upload(page: Any, content: bytes) -> None:
    file = {"name": "<b>lesion</b>.jpg", "mimeType": "image/jpeg", "buffer": content}
    page.set_input_files("input[type=file]", file)


def classify(page: Any) -> None:
    page.get_by_role("button", name="Classify").click()


def test_an_image_with_metadata_gives_the_models_answer_and_where_it_looks(page, app, model, jpeg):
    upload(page, jpeg)
    page.wait_for_selector(".sl-preview img")
    assert page.get_by_label("age").input_value() == ""
    page.get_by_label("age").fill("45")
    page.get_by_label("sex").click()
    page.get_by_role("option", name="male", exact=True).click()
    classify(page)
    page.wait_for_selector(".sl-answer")

    expected = model.predict(jpeg, age=45, sex="male")
    cells = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    assert page.locator(".sl-answer tbody tr").evaluate_all(cells) == [
        [name, f"{p:.4f}", f"{expected.raw[name]:.4f}"]
        for name, p in expected.probabilities.items()
    ]
    assert page.locator(".sl-bars li").count() == 7
    first = page.locator(".sl-bars .sl-first")
    assert first.get_attribute("data-class") == expected.label
    assert f"{100 * expected.probabilities[expected.label]:.1f} %" in first.inner_text()
    assert "melanoma (mel)" in page.locator(".sl-bars").inner_text()
    assert page.locator(".sl-given").inner_text() == (
        "From the image, age 45, sex male. Not used, because unknown: localization."
    )
    titles = page.locator(".sl-pictures figcaption > b").all_text_contents()
    assert titles == ["What it sees", "Soft attention", f"Grad-CAM for {expected.label}"]
    page.wait_for_function(
        "size => [...document.querySelectorAll('.sl-pictures img')]"
        ".filter(image => image.naturalWidth === size).length === 3",
        arg=model.size,
    )
    assert app.files() == []


def test_a_sample_fills_the_page_and_can_be_classified(page, model):
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
    page.get_by_label("age").fill("200")
    classify(page)
    page.wait_for_selector("text=age: expected a number from 0 to 120")


def test_what_is_no_image_or_too_large_is_refused_in_words(page, app, tmp_path):
    classify(page)
    page.wait_for_selector("text=There is no image yet")
    upload(page, b"no picture at all")
    message = page.locator(".sl-shown [role=alert]").inner_text()
    assert message == "The file: no JPEG, PNG or WebP"
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(40_000_000))
    page.set_input_files("input[type=file]", large)
    page.wait_for_selector("text=maximum allowed size of 30")
    assert app.send(large.read_bytes()).status_code == 413
    assert app.files() == []


def test_the_page_says_what_it_is_and_what_the_model_is(page):
    warning = page.locator(".sl-warning").inner_text()
    assert "Research software. No medical device. It says nothing about your skin." in warning
    assert "dermoscopic" in warning
    assert "one of its 7 classes, even for a picture of a cat" in warning
    assert "dermoscopic" not in page_of.PIECES.warning(("round", "square"), False)
    about = page.locator(".sl-about").inner_text()
    assert "mobilenet_v3_small, with soft attention" in about
    assert "no photograph of a held-out lesion was trained on" in about
    accuracy = r"Held-out accuracy\s+\d+\.\d %, balanced \d+\.\d %, on \d+ test images"
    assert re.search(accuracy, about)


def file_at(path: Path | str) -> dict[str, Any]:
    """A file as Gradio speaks of it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_a_file_of_the_machine_is_refused_in_every_field(app, tmp_path, jpeg):
    secret = tmp_path / "secret-name.txt"
    secret.write_text("secret-content")
    (folder,) = app.temporary.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    values = [
        file_at("http://192.0.2.1/x.jpg"),
        file_at(secret),
        file_at(secret) | {"url": f"http://127.0.0.1/gradio_api/file={secret}"},
        file_at(secret) | {"is_stream": True},
        file_at(f"/gradio_api/file={secret}"),
        file_at(os.path.relpath(secret)),
        file_at(folder / ".." / ".." / secret.relative_to(secret.parents[-1])),
        [file_at(secret)],
        {"orig_name": file_at(secret)},
        {"path": str(secret)},
        {"path": str(secret), "orig_name": file_at(secret)},
        str(secret),
    ]
    (sent,) = app.send(jpeg).json()
    shown = re.search(r"data:image/jpeg;base64,([\w+/=]+)", app.ask("take", [file_at(sent)]))
    assert b"HERE" in jpeg  # where it was taken; the page does not know
    assert b"HERE" not in base64.b64decode(shown[1])
    fields = [*app.fields()]
    assert len(fields) == 7  # the file; the image, its views, doubts, age, sex and localization
    for name, place, count in fields:
        for value in values:
            data = [None] * count
            data[place] = value
            said = app.ask(name, data, event={"index": value})
            for mine in ("file=", "secret", "192.0.2.1", str(app.temporary), str(tmp_path)):
                assert mine not in said, (name, place, value)
            assert app.files() == [], (name, place, value)
    assert "No address is fetched" in app.errors.read_text()
    assert secret.read_text() == "secret-content"
    # The same session is answered when it asks as the page does.
    assert "Most probable" in app.ask("classify", [None, "flips", False, 45, "male", ""])
    assert "Not sure enough" in app.ask("classify", [None, "", True, 45, "male", ""])


def test_no_file_is_served_and_only_what_the_page_asks_for_is_there(app, jpeg):
    (sent,) = app.send(jpeg).json()
    files = (f"file={sent}", f"file/{sent}", f"./file={sent}", f"%66ile={sent}", f"file={__file__}")
    asked = (*files, "deep_link?session_hash=a", "proxy=http://192.0.2.1/", "info")
    for path in (*(f"gradio_api/{path}" for path in asked), "docs", "openapi.json", "monitoring"):
        reply = app.get(path)
        assert (reply.status_code, reply.text) == (404, "Refused."), path
    # Read by the page, it goes.
    app.ask("take", [file_at(sent)])
    body = {"data": [None, None, None, None], "session_hash": "b"}
    for path in ("run/classify", "api/classify", "call/classify", "call/v2/classify"):
        assert app.post(path, json=body).status_code == 404, path
    for path in ("component_server", "process_recording"):
        assert app.post(path, files={"files": b"content"}).status_code == 404, path
    assert app.files() == []


def test_a_refusal_does_not_repeat_what_was_sent(app):
    wrong = {"data": "sent-by-me", "session_hash": ["sent-by-me"]}
    reply = app.post("queue/join", json=wrong)
    assert (reply.status_code, reply.text) == (422, "Refused.")
    said = app.ask("pick", [], event={"index": "sent-by-me"})
    assert '"success":false' in said
    assert "sent-by-me" not in said


def test_another_site_may_not_send_anything(app, jpeg):
    port = int(app.address.rpartition(":")[2])
    for origin in ("https://elsewhere.example", f"http://127.0.0.1:{port + 1}", "null", "http://["):
        assert app.send(jpeg, Origin=origin).status_code == 403, origin
        joined = app.post("queue/join", headers={"Origin": origin}, json={})
        assert joined.status_code == 403, origin
    assert app.files() == []
    # A site that gives its own name this address.
    assert app.get("", headers={"Host": "elsewhere.example"}).status_code == 400
    assert "default-src 'self'" in app.get("").headers["Content-Security-Policy"]
    (sent,) = app.send(jpeg, Origin=app.address).json()
    app.ask("take", [file_at(sent)])


def test_the_sum_of_all_uploads_has_an_end(app):
    sent = [app.send(b"%d" % i + bytes(30_000_000)) for i in range(8)]
    assert [reply.status_code for reply in sent] == [200] * 8
    refused = app.send(b"8" + bytes(30_000_000))
    assert (refused.status_code, refused.text) == (503, "Refused.")
    assert len(app.files()) == 8
    # What nobody has read for ten minutes makes room.
    old = Path(sent.pop().json()[0])
    os.utime(old, (0, 0))
    sent.append(app.send(b"8" + bytes(30_000_000)))
    assert sent[-1].status_code == 200
    assert not old.exists()
    for i, reply in enumerate(sent):
        app.ask("take", [file_at(reply.json()[0])], session=f"sum{i}")
    assert app.files() == []


def test_what_is_under_way_counts_and_what_is_broken_off_goes(app, jpeg):
    host, port = app.address.removeprefix("http://").split(":")
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nbegun'
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 30000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    begun = [socket.create_connection((host, int(port))) for _ in range(8)]
    for each in begun:
        each.sendall(head.encode() + part)
    wait_for(lambda: len(app.files()) == 8)
    assert app.send(bytes(20_000_000)).status_code == 503
    for each in begun:
        each.close()
    wait_for(lambda: app.files() == [])
    (sent,) = app.send(jpeg).json()
    app.ask("take", [file_at(sent)])
    # How much comes has to be said beforehand.
    assert app.post("upload", data=iter([part])).status_code == 411


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ctrl_c_stops_it_quietly_and_leaves_nothing(app):
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(timeout=60) == 0
    assert app.process.stdout is not None
    assert app.process.stdout.read().strip() == ""
    assert "Interrupt" not in app.errors.read_text()
    assert list(app.temporary.iterdir()) == []


def test_another_host_is_warned_of(capsys):
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        with pytest.raises(SystemExit, match="no such run"):
            main(["app", "nowhere", "--host", host])
        assert ("Nothing is authenticated or encrypted" in capsys.readouterr().err) == warned


def test_a_port_in_use_is_one_clear_error(model, trained):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SkinlesionError, match=r"cannot be had .* choose another with --port"),
    ):
        serve(model, trained, "127.0.0.1", taken.getsockname()[1], show=False)


def test_without_gradio_the_error_names_what_to_install(model, trained, tmp_path, monkeypatch):
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SkinlesionError, match=r"pip install 'skinlesion\[app\]'"):
        build_application(model, trained, tmp_path, "127.0.0.1")
