"""The download, against a Dataverse that runs on this machine and misbehaves as told."""

import errno
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3.util.retry

from skinlesion.cli import main
from skinlesion.data import download as module
from skinlesion.data.archive import MASKS
from skinlesion.data.download import CHUNK, RemoteFile, download
from skinlesion.errors import SkinlesionError

LARGE, TABLE = "large.zip", "table.csv"
CONTENT = {
    LARGE: bytes(range(251)) * (4 * CHUNK // 251),  # between three and four chunks
    TABLE: b"lesion_id,image_id,dx\nHAM_0000118,ISIC_0027419,bkl\n",
}
PUBLISHED = [
    RemoteFile(name, place, len(CONTENT[name]), hashlib.md5(CONTENT[name]).hexdigest())
    for name, place in ((LARGE, LARGE), (TABLE, f"{TABLE}?format=original"))
]


@dataclass
class Dataverse:
    """What the server holds, how it misbehaves, and what it was asked for."""

    url: str = ""
    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    statuses: list[int] = field(default_factory=list)  # given instead of the next answers
    breaks: list[int] = field(default_factory=list)  # bytes after which the next downloads break
    honours_range: bool = True
    announces_length: bool = True
    raw: bytes = b""  # given instead of any answer
    listing: bytes = b""  # what the record holds
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # file, Range

    def fetch(self, root: Path) -> list[Path]:
        return download(root, self.url, PUBLISHED)


@pytest.fixture
def dataverse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataverse]:
    at = Dataverse()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> Any:
            assert self.headers["User-Agent"] == "skinlesion"  # Harvard refuses that of requests
            if at.raw:
                return self.wfile.write(at.raw)
            if at.statuses:
                return self.answer(at.statuses.pop(0), b"")
            if self.path == f"/{module.LISTING}":
                return self.answer(200, at.listing, len(at.listing))
            if self.path.startswith("/api/access/datafile/"):
                # As at Harvard, the bytes themselves come from elsewhere.
                elsewhere = self.path.replace("/api/access/datafile", "/s3")
                return self.answer(303, b"", Location=elsewhere)
            name = self.path.removeprefix("/s3/").removesuffix("?format=original")
            asked, content = self.headers["Range"], at.content[name]
            at.requests.append((name, asked))
            start = int(asked[6:-1]) if asked and at.honours_range else 0
            end = at.breaks.pop(0) if at.breaks else len(content)
            length = len(content) - start if at.announces_length else None
            return self.answer(206 if start else 200, content[start:end], length)

        def answer(self, status: int, body: bytes, length: int | None = 0, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    monkeypatch.setattr(urllib3.util.retry.time, "sleep", lambda seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        at.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield at
        server.shutdown()
        thread.join()


def whole(root: Path) -> bool:
    return {path.name: path.read_bytes() for path in root.iterdir()} == CONTENT


def test_what_is_complete_is_skipped_and_what_is_not_the_published_file_replaced(
    dataverse: Dataverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "ham10000"
    assert dataverse.fetch(root) == [root / LARGE, root / TABLE]
    assert whole(root)
    assert capsys.readouterr() == ("", "")  # no bar where stderr is no terminal
    (root / TABLE).write_text("lesion_id\n")
    dataverse.requests.clear()
    dataverse.fetch(root)
    assert whole(root)
    assert dataverse.requests == [(TABLE, None)]
    assert capsys.readouterr().out.splitlines() == [
        f"{root / LARGE} is complete: skipped",
        f"{root / TABLE} is not the published file: replaced",
    ]


@pytest.mark.parametrize("announces_length", [True, False])
def test_a_broken_connection_is_resumed_without_sending_a_byte_twice(
    dataverse: Dataverse, tmp_path: Path, announces_length: bool
) -> None:
    dataverse.announces_length, dataverse.breaks = announces_length, [2 * CHUNK, 3 * CHUNK]
    dataverse.fetch(tmp_path)
    assert whole(tmp_path)
    ranges = [None, f"bytes={2 * CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert dataverse.requests[:3] == [(LARGE, asked) for asked in ranges]


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_later_call_resumes_the_part_that_is_left(
    dataverse: Dataverse, tmp_path: Path, honours_range: bool
) -> None:
    dataverse.honours_range, dataverse.breaks = honours_range, [CHUNK] * 2
    with pytest.raises(SkinlesionError, match="goes on from there"):
        dataverse.fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{LARGE}.part"]
    assert (tmp_path / f"{LARGE}.part").read_bytes() == CONTENT[LARGE][:CHUNK]
    dataverse.fetch(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("length", [1000, len(CONTENT[LARGE]), len(CONTENT[LARGE]) + 1])
def test_a_part_that_is_not_of_the_file_is_removed(
    dataverse: Dataverse, tmp_path: Path, length: int
) -> None:
    (tmp_path / f"{LARGE}.part").write_bytes(b"x" * length)
    with pytest.raises(SkinlesionError, match=f"{LARGE} arrived damaged: its MD5 should be"):
        dataverse.fetch(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_never_more_is_written_than_the_file_has(dataverse: Dataverse, tmp_path: Path) -> None:
    dataverse.content[LARGE] += b"!" * 100
    with pytest.raises(SkinlesionError, match=r"bytes, which are not large\.zip"):
        dataverse.fetch(tmp_path)
    dataverse.announces_length = False
    dataverse.fetch(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize(
    ("statuses", "message"),
    [([503, 429], None), ([503] * 9, "by hand"), ([404], r"HTTP 404 Not Found for .*large\.zip")],
)
def test_a_busy_server_is_asked_again_and_one_that_refuses_is_not(
    dataverse: Dataverse, tmp_path: Path, statuses: list[int], message: str | None
) -> None:
    dataverse.statuses = statuses
    if message is None:
        dataverse.fetch(tmp_path)
        assert whole(tmp_path)
    else:
        with pytest.raises(SkinlesionError, match=message):
            dataverse.fetch(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: long",
        b"Content-Length:",
        b"Content-Length: -1",
        b"Content-Length: 1\r\nContent-Length: 2",
        b"Content-Encoding: gzip",
        b"Transfer-Encoding: chunked",
        b"X: " + b"y" * 70_000,
        b"Location: file:///etc/passwd",
        b"Location: http://[",
        b"Location: /api/access/datafile/x",
        bytes(range(256)),
    ],
    ids=lambda header: repr(header[:50]),
)
@pytest.mark.parametrize("body", [b"body", gzip.compress(bytes(20_000_000))], ids=len)
def test_whatever_a_server_answers_is_one_clear_line(
    dataverse: Dataverse, tmp_path: Path, header: bytes, body: bytes
) -> None:
    status = b"302 Found" if b"Location" in header else b"200 OK"
    dataverse.raw = b"HTTP/1.1 " + status + b"\r\n" + header + b"\r\n\r\n" + body
    with pytest.raises(SkinlesionError) as refusal:
        dataverse.fetch(tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / LARGE).exists()


def test_without_a_server_the_way_by_hand_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib3.util.retry.time, "sleep", lambda seconds: None)
    with pytest.raises(SkinlesionError) as raised:
        download(tmp_path, "http://127.0.0.1:1")
    for part in ("Connection refused", "open https://doi.org/10.7910/DVN/DBW86T", str(tmp_path)):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_disks_without_space_and_folders_that_cannot_be_made_are_named(
    dataverse: Dataverse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SkinlesionError, match=f"Cannot write into {tmp_path / 'file'}"):
        dataverse.fetch(tmp_path / "file")
    (tmp_path / f"{LARGE}.part").write_bytes(CONTENT[LARGE][:1000])
    usage = SimpleNamespace(free=sum(map(len, CONTENT.values())) - 1001)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SkinlesionError, match="Make room or choose another folder"):
        dataverse.fetch(tmp_path)
    assert dataverse.requests == []
    usage.free += 1

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_append", full)
    with pytest.raises(SkinlesionError, match=r"No space left on device.* goes on from there"):
        dataverse.fetch(tmp_path)


def test_of_test_set_and_masks_dataverse_is_asked_for_size_and_checksum(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    names = (module.TEST[0], module.TEST[1].replace("csv", "tab"), MASKS)
    told = {"id": 7, "filesize": 5, "originalFileSize": 3, "md5": "x"}
    files = [{"dataFile": told | {"filename": name}} for name in names]
    dataverse.listing = json.dumps({"data": {"latestVersion": {"files": files}}}).encode()
    images, table = module._listed(dataverse.url, module.TEST)
    assert images == RemoteFile(names[0], "7", 5, "x")
    assert table == RemoteFile(module.TEST[1], "7?format=original", 3, "x")
    with pytest.raises(SkinlesionError, match=r"its list of files lacks 'absent\.zip'.*by hand"):
        download(tmp_path, dataverse.url, asked=["absent.zip"])


def test_the_masks_are_fetched_by_name(
    dataverse: Dataverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = b"masks"
    told = {"id": "9", "filesize": 5, "md5": hashlib.md5(content).hexdigest(), "filename": MASKS}
    listed = {"data": {"latestVersion": {"files": [{"dataFile": told}]}}}
    dataverse.listing, dataverse.content = json.dumps(listed).encode(), {"9": content}
    command = ["data", "download", "--masks", "--root", str(tmp_path), "--server", dataverse.url]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / MASKS}\n"
    assert (tmp_path / MASKS).read_bytes() == content
    assert len(dataverse.requests) == 1
