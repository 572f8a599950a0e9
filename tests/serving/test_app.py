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
    assert message == "The file is no image of JPEG, PNG, WEBP."
    assert str(app.temporary) not in message
    assert app.files() == []


def test_a_value_out_of_range_is_refused_in_words(page: Any) -> None:
    page.locator(".sl-samples button").first.click()
    page.wait_for_selector(".sl-preview img")
    page.get_by_label("age").fill("200")
    classify(page)
    page.wait_for_selector("text=age: expected a number from 0 to 120")


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


def endpoints(app: Running) -> dict[str, Any]:
    """Name → what the page tells a browser of it."""
    config = requests.get(f"{app.address}/config", timeout=5).json()
    return {each["api_name"]: each for each in config["dependencies"]}


def ask(app: Running, endpoint: Any, data: list[Any], session: str = "a", event: Any = None) -> str:
    """What the queue answers, word for word."""
    joined = {"data": data, "fn_index": endpoint["id"], "session_hash": session}
    reply = requests.post(
        f"{app.address}/gradio_api/queue/join", json=joined | {"event_data": event}, timeout=5
    )
    if not reply.ok:
        return reply.text
    with requests.get(
        f"{app.address}/gradio_api/queue/data?session_hash={session}", stream=True, timeout=30
    ) as events:
        return "\n".join(events.iter_lines(decode_unicode=True))


def send(app: Running, content: bytes, **headers: str) -> requests.Response:
    return requests.post(
        f"{app.address}/gradio_api/upload",
        files={"files": ("lesion.jpg", content)},
        headers=headers,
        timeout=20,
    )


def file_at(path: Path | str) -> dict[str, Any]:
    """A file as Gradio speaks of it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def test_a_file_of_the_machine_is_refused_in_every_field(
    app: Running, tmp_path: Path, jpeg: bytes
) -> None:
    secret = tmp_path / "secret-name.txt"
    secret.write_text("secret-content")
    (folder,) = app.temporary.iterdir()
    around = folder / ".." / ".." / secret.relative_to(secret.parents[-1])
    values = [
        file_at(secret),
        file_at(secret) | {"url": f"http://127.0.0.1/gradio_api/file={secret}"},
        file_at(secret) | {"is_stream": True},
        file_at(f"/gradio_api/file={secret}"),
        file_at(os.path.relpath(secret)),
        file_at(around),
        [file_at(secret)],
        {"orig_name": file_at(secret)},
        {"path": str(secret)},
        {"path": str(secret), "orig_name": file_at(secret)},
        str(secret),
    ]
    taken = endpoints(app)["take"]
    (sent,) = send(app, jpeg).json()
    assert "data:image/jpeg" in ask(app, taken, [file_at(sent)])
    fields = 0
    for endpoint in endpoints(app).values():
        for place in range(len(endpoint["inputs"])):
            fields += 1
            for value in values:
                data = [None] * len(endpoint["inputs"])
                data[place] = value
                said = ask(app, endpoint, data, event={"index": value})
                for mine in ("file=", "secret", str(app.temporary), str(tmp_path)):
                    assert mine not in said, (endpoint["api_name"], place, value)
                assert app.files() == [], (endpoint["api_name"], place, value)
    assert fields == 5  # the file; the image, age, sex and localization
    # The same session is answered when it asks as the page does.
    said = ask(app, endpoints(app)["classify"], [None, 45, "male", ""])
    assert "Most probable" in said


def test_no_file_is_served_not_even_an_upload(app: Running, jpeg: bytes) -> None:
    (sent,) = send(app, jpeg).json()
    for path in (f"file={sent}", f"file/{sent}", f"./file={sent}", f"%66ile={sent}"):
        reply = requests.get(f"{app.address}/gradio_api/{path}", timeout=5)
        assert reply.status_code == 404, path
        assert sent not in reply.text
    # Read by the page, it goes.
    ask(app, endpoints(app)["take"], [file_at(sent)])
    assert app.files() == []


def test_only_what_the_page_asks_for_is_there(app: Running) -> None:
    body = {"data": [None, None, None, None], "session_hash": "b"}
    for path in ("run/classify", "api/classify", "call/classify", "call/v2/classify"):
        reply = requests.post(f"{app.address}/gradio_api/{path}", json=body, timeout=5)
        assert reply.status_code == 404, path
    for path in ("component_server", "process_recording"):
        file = {"files": b"content"}
        reply = requests.post(f"{app.address}/gradio_api/{path}", files=file, timeout=5)
        assert reply.status_code == 404, path
    for path in ("deep_link?session_hash=a", "proxy=http://192.0.2.1/", "info"):
        assert requests.get(f"{app.address}/gradio_api/{path}", timeout=5).status_code == 404, path
    assert app.files() == []


def test_a_refusal_does_not_repeat_what_was_sent(app: Running) -> None:
    wrong = {"data": "sent-by-me", "session_hash": ["sent-by-me"]}
    reply = requests.post(f"{app.address}/gradio_api/queue/join", json=wrong, timeout=5)
    assert (reply.status_code, reply.text) == (422, "Refused.")
    said = ask(app, endpoints(app)["pick"], [], event={"index": "sent-by-me"})
    assert '"success":false' in said
    assert "sent-by-me" not in said


def test_another_site_may_not_send_anything(app: Running, jpeg: bytes) -> None:
    port = int(app.address.rpartition(":")[2])
    for origin in ("https://elsewhere.example", f"http://127.0.0.1:{port + 1}", "null", "http://["):
        assert send(app, jpeg, Origin=origin).status_code == 403, origin
        joined = requests.post(
            f"{app.address}/gradio_api/queue/join", headers={"Origin": origin}, json={}, timeout=5
        )
        assert joined.status_code == 403, origin
    assert app.files() == []
    (sent,) = send(app, jpeg, Origin=app.address).json()
    ask(app, endpoints(app)["take"], [file_at(sent)])


def test_the_sum_of_all_uploads_has_an_end(app: Running) -> None:
    sent = [send(app, b"%d" % i + bytes(30_000_000)) for i in range(8)]
    assert [reply.status_code for reply in sent] == [200] * 8
    refused = send(app, b"8" + bytes(30_000_000))
    assert (refused.status_code, refused.text) == (503, "Refused.")
    assert len(app.files()) == 8
    # What nobody has read for ten minutes makes room.
    old = Path(sent.pop().json()[0])
    os.utime(old, (0, 0))
    sent.append(send(app, b"8" + bytes(30_000_000)))
    assert sent[-1].status_code == 200
    assert not old.exists()
    for i, reply in enumerate(sent):
        ask(app, endpoints(app)["take"], [file_at(reply.json()[0])], session=f"sum{i}")
    assert app.files() == []


def test_what_is_under_way_counts_and_what_is_broken_off_goes(app: Running, jpeg: bytes) -> None:
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
    assert send(app, bytes(20_000_000)).status_code == 503
    for each in begun:
        each.close()
    wait_for(lambda: app.files() == [])
    (sent,) = send(app, jpeg).json()
    ask(app, endpoints(app)["take"], [file_at(sent)])
    # How much comes has to be said beforehand.
    unsaid = requests.post(f"{app.address}/gradio_api/upload", data=iter([part]), timeout=5)
    assert unsaid.status_code == 411


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_server_downloads_nothing_for_a_visitor(app: Running) -> None:
    for endpoint in endpoints(app).values():
        for place in range(len(endpoint["inputs"])):
            data: list[Any] = [None] * len(endpoint["inputs"])
            data[place] = file_at("http://192.0.2.1/x.jpg")
            assert "192.0.2.1" not in ask(app, endpoint, data)
    assert "No address is fetched" in app.errors.read_text()


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
        assert read_upload({"path": str(sent)}, uploads).shape == (72, 96, 3)
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
    image = read_upload({"path": str(sent)}, tmp_path)
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
