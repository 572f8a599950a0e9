"""The download, against a Dataverse that runs on this machine and misbehaves as told."""

import errno
import hashlib
import io
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from skinlesion.data import download as module
from skinlesion.data.download import CHUNK, download
from skinlesion.errors import SkinlesionError

DOI = "doi:10.7910/DVN/DBW86T"
PART_1, PART_2, METADATA = module.FILES
ORIGINAL = b"lesion_id,image_id,dx\nHAM_0000118,ISIC_0027419,bkl\n"
INGESTED = b'"lesion_id"\t"image_id"\t"dx"\n"HAM_0000118"\t"ISIC_0027419"\t"bkl"\n'
CONTENT = {
    PART_1: bytes(range(251)) * (4 * CHUNK // 251),  # between three and four chunks
    PART_2: b"the second archive",
    METADATA: ORIGINAL,
}
IDS = {PART_1: 3172585, PART_2: 3172584, METADATA: 4338392}


class Request(NamedTuple):
    file: str
    range: str | None
    sent: int


def data_file(name: str, content: bytes, **more: Any) -> dict[str, Any]:
    md5 = hashlib.md5(content).hexdigest()
    checksum = {"type": "MD5", "value": md5}
    return {
        "id": IDS[name],
        "filesize": len(content),
        "md5": md5,
        "checksum": checksum,
    } | more


def dataset() -> list[dict[str, Any]]:
    """The files of the dataset as the native API lists them."""
    ingested = {
        "filesize": len(INGESTED),
        "originalFileFormat": "text/csv",
        "originalFileSize": len(ORIGINAL),
    }
    return [
        {"label": PART_2, "dataFile": data_file(PART_2, CONTENT[PART_2])},
        {"label": "ISIC2018_Task3_Test_Images.zip", "dataFile": {"id": 3855824}},
        {"label": "HAM10000_metadata.tab", "dataFile": data_file(METADATA, ORIGINAL, **ingested)},
        {"label": PART_1, "dataFile": data_file(PART_1, CONTENT[PART_1])},
    ]


@dataclass
class Dataverse:
    """What the server holds, how it misbehaves, and what it was asked for."""

    url: str
    files: list[dict[str, Any]] = field(default_factory=dataset)
    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    statuses: list[int] = field(default_factory=list)  # given instead of the next answers
    breaks: list[int] = field(default_factory=list)  # bytes after which the next downloads break
    honours_range: bool = True
    listing: bytes | None = None  # given instead of the JSON
    requests: list[Request] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    def entry(self, name: str) -> dict[str, Any]:
        return next(file["dataFile"] for file in self.files if file["dataFile"]["id"] == IDS[name])

    def requests_for(self, name: str) -> list[Request]:
        return [request for request in self.requests if request.file == name]


class Handler(BaseHTTPRequestHandler):
    dataverse: Dataverse

    def do_GET(self) -> None:
        self.dataverse.agents.add(self.headers["User-Agent"])
        url = urlsplit(self.path)
        if self.dataverse.statuses:
            status = self.dataverse.statuses.pop(0)
            self.answer(status, json.dumps({"status": "ERROR", "message": "told to"}).encode())
        elif url.path == "/api/datasets/:persistentId/":
            self.list_files(parse_qs(url.query)["persistentId"][0])
        elif url.path.startswith("/api/access/datafile/"):
            # As at Harvard, the bytes themselves come from elsewhere.
            self.answer(303, Location=self.path.replace("/api/access/datafile", "/s3"))
        else:
            name = next(name for name, id_ in IDS.items() if url.path == f"/s3/{id_}")
            self.send_file(name, parse_qs(url.query).get("format"))

    def list_files(self, doi: str) -> None:
        if doi != DOI:
            message = f"Dataset with Persistent ID {doi} not found."
            return self.answer(404, json.dumps({"status": "ERROR", "message": message}).encode())
        files = {"status": "OK", "data": {"latestVersion": {"files": self.dataverse.files}}}
        return self.answer(200, self.dataverse.listing or json.dumps(files).encode())

    def send_file(self, name: str, form: list[str] | None) -> None:
        ingested = "originalFileFormat" in self.dataverse.entry(name)
        if form and not ingested:
            return self.answer(404)
        content = INGESTED if ingested and form != ["original"] else self.dataverse.content[name]
        asked = self.headers["Range"]
        start = 0
        if asked and self.dataverse.honours_range:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(content):
            self.dataverse.requests.append(Request(name, asked, 0))
            return self.answer(416)
        end = self.dataverse.breaks.pop(0) if self.dataverse.breaks else len(content)
        body = content[start:end]
        self.dataverse.requests.append(Request(name, asked, len(body)))
        length = str(len(content) - start)
        return self.answer(206 if start else 200, body, **{"Content-Length": length})

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def dataverse() -> Iterator[Dataverse]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.dataverse = Dataverse(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Handler.dataverse
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been slept."""
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    return waited


def leave_part(root: Path, name: str, content: bytes) -> Path:
    part = root / f"{name}.part"
    part.write_bytes(content)
    return part


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_fetches_the_two_archives_and_the_metadata(dataverse: Dataverse, tmp_path: Path) -> None:
    root = tmp_path / "new" / "ham10000"
    paths = download(root, server=dataverse.url)
    assert paths == [root / PART_1, root / PART_2, root / METADATA]
    assert {path.name: path.read_bytes() for path in paths} == CONTENT
    assert names(root) == set(CONTENT)


def test_the_metadata_is_the_uploaded_csv_and_not_the_ingested_table(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / METADATA).read_bytes() == ORIGINAL


def test_a_csv_that_was_not_ingested_is_fetched_as_it_is(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    dataverse.files[2] = {"label": METADATA, "dataFile": data_file(METADATA, ORIGINAL)}
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / METADATA).read_bytes() == ORIGINAL


def test_does_not_call_itself_requests_which_harvard_refuses(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    download(tmp_path, server=dataverse.url)
    assert dataverse.agents == {"skinlesion"}


def test_draws_no_bar_where_stderr_is_no_terminal(
    dataverse: Dataverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(tmp_path, server=dataverse.url)
    assert capsys.readouterr().err == ""


def test_a_broken_connection_is_resumed_without_sending_a_byte_twice(
    dataverse: Dataverse, tmp_path: Path, waits: list[float]
) -> None:
    dataverse.breaks = [2 * CHUNK]
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / PART_1).read_bytes() == CONTENT[PART_1]
    assert dataverse.requests_for(PART_1) == [
        Request(PART_1, None, 2 * CHUNK),
        Request(PART_1, f"bytes={2 * CHUNK}-", len(CONTENT[PART_1]) - 2 * CHUNK),
    ]
    assert waits == [1]


def test_retries_are_counted_anew_when_bytes_arrived(dataverse: Dataverse, tmp_path: Path) -> None:
    dataverse.breaks = [CHUNK, 2 * CHUNK, 3 * CHUNK]
    download(tmp_path, server=dataverse.url, retries=1)
    assert (tmp_path / PART_1).read_bytes() == CONTENT[PART_1]


def test_gives_up_after_the_retries_and_keeps_what_arrived(
    dataverse: Dataverse, tmp_path: Path, waits: list[float]
) -> None:
    dataverse.breaks = [CHUNK] * 9
    with pytest.raises(SkinlesionError, match="goes on from there"):
        download(tmp_path, server=dataverse.url, retries=3)
    assert names(tmp_path) == {f"{PART_1}.part"}
    assert (tmp_path / f"{PART_1}.part").read_bytes() == CONTENT[PART_1][:CHUNK]
    assert waits == [1, 2, 4]


def test_a_later_call_resumes_the_part_that_is_left(dataverse: Dataverse, tmp_path: Path) -> None:
    leave_part(tmp_path, PART_1, CONTENT[PART_1][:1000])
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / PART_1).read_bytes() == CONTENT[PART_1]
    (request,) = dataverse.requests_for(PART_1)
    assert request == Request(PART_1, "bytes=1000-", len(CONTENT[PART_1]) - 1000)


def test_a_part_that_is_already_whole_is_only_verified(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    leave_part(tmp_path, PART_1, CONTENT[PART_1])
    download(tmp_path, server=dataverse.url)
    assert names(tmp_path) == set(CONTENT)
    assert [request.sent for request in dataverse.requests_for(PART_1)] == [0]


def test_a_part_longer_than_the_file_is_refused_and_removed(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    part = leave_part(tmp_path, PART_1, CONTENT[PART_1] + b"!")
    with pytest.raises(SkinlesionError, match=f"{PART_1} arrived damaged"):
        download(tmp_path, server=dataverse.url)
    assert not part.exists()


def test_a_server_that_ignores_range_sends_the_file_from_its_start(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    dataverse.honours_range = False
    leave_part(tmp_path, PART_1, b"x" * 1000)
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / PART_1).read_bytes() == CONTENT[PART_1]


def test_complete_files_are_skipped_and_said_so(
    dataverse: Dataverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(tmp_path, server=dataverse.url)
    dataverse.requests.clear()
    capsys.readouterr()
    paths = download(tmp_path, server=dataverse.url)
    assert paths == [tmp_path / name for name in CONTENT]
    assert dataverse.requests == []
    assert capsys.readouterr().out.splitlines() == [
        f"{path} is complete: skipped (MD5)" for path in paths
    ]


def test_a_file_that_is_not_the_published_one_is_replaced_and_said_so(
    dataverse: Dataverse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / METADATA).write_text("lesion_id\n")
    download(tmp_path, server=dataverse.url)
    assert (tmp_path / METADATA).read_bytes() == ORIGINAL
    assert f"{METADATA} is not the published file: replaced" in capsys.readouterr().out


def test_a_wrong_checksum_names_the_file_and_both_digests(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    dataverse.content[PART_2] = b"another archive"
    with pytest.raises(SkinlesionError) as raised:
        download(tmp_path, server=dataverse.url)
    expected, found = (hashlib.md5(c).hexdigest() for c in (CONTENT[PART_2], b"another archive"))
    assert f"{PART_2} arrived damaged: its MD5 should be {expected} and is {found}." in str(
        raised.value
    )
    assert "repeat the command" in str(raised.value)
    assert names(tmp_path) == {PART_1}


@pytest.mark.parametrize(
    ("checksum_type", "algorithm"),
    [("MD5", "md5"), ("SHA-1", "sha1"), ("SHA-256", "sha256"), ("SHA-512", "sha512")],
)
def test_verifies_by_the_algorithm_that_the_server_names(
    dataverse: Dataverse, tmp_path: Path, checksum_type: str, algorithm: str
) -> None:
    value = hashlib.new(algorithm, CONTENT[PART_2]).hexdigest()
    dataverse.entry(PART_2)["checksum"] = {"type": checksum_type, "value": value}
    download(tmp_path, server=dataverse.url)
    dataverse.entry(PART_2)["checksum"]["value"] = "0" * len(value)
    with pytest.raises(SkinlesionError, match=f"{checksum_type} should be 000"):
        download(tmp_path, server=dataverse.url)


def test_an_old_server_gives_the_md5_alone(dataverse: Dataverse, tmp_path: Path) -> None:
    for name in CONTENT:
        del dataverse.entry(name)["checksum"]
    download(tmp_path, server=dataverse.url)
    assert names(tmp_path) == set(CONTENT)


@pytest.mark.parametrize("checksum", [None, {"type": "CRC32", "value": "1b851995"}])
def test_a_file_that_cannot_be_verified_is_not_downloaded(
    dataverse: Dataverse, tmp_path: Path, checksum: dict[str, str] | None
) -> None:
    dataverse.entry(PART_1).update(checksum=checksum, md5=None)
    with pytest.raises(SkinlesionError, match=f"{PART_1} .* cannot be verified"):
        download(tmp_path, server=dataverse.url)
    assert names(tmp_path) == set()


def test_too_little_space_stops_before_the_first_byte(
    dataverse: Dataverse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_part(tmp_path, PART_1, CONTENT[PART_1][:1000])
    needed = sum(map(len, CONTENT.values())) - 1000
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SkinlesionError, match="Make room or choose another folder"):
        download(tmp_path, server=dataverse.url)
    assert dataverse.requests == []
    usage.free = needed
    download(tmp_path, server=dataverse.url)


def test_a_disk_that_fills_up_keeps_the_part_and_a_repeat_resumes(
    dataverse: Dataverse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullAfterTwoChunks(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() >= 2 * CHUNK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    real_open = Path.open
    with monkeypatch.context() as disk:
        disk.setattr(
            Path,
            "open",
            lambda path, mode: (
                real_open(path, mode) if mode == "rb" else FullAfterTwoChunks(path, mode)
            ),
        )
        with pytest.raises(SkinlesionError, match=r"No space is left .* goes on from there"):
            download(tmp_path, server=dataverse.url)
    assert (tmp_path / f"{PART_1}.part").read_bytes() == CONTENT[PART_1][: 2 * CHUNK]

    download(tmp_path, server=dataverse.url)
    assert dataverse.requests_for(PART_1)[-1].range == f"bytes={2 * CHUNK}-"
    assert (tmp_path / PART_1).read_bytes() == CONTENT[PART_1]


def test_a_folder_that_cannot_be_made_is_named(dataverse: Dataverse, tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(SkinlesionError, match=f"Cannot write into {root}"):
        download(root, server=dataverse.url)


def test_ctrl_c_leaves_the_part(
    dataverse: Dataverse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    dataverse.breaks = [CHUNK]
    monkeypatch.setattr(module.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, server=dataverse.url)
    assert (tmp_path / f"{PART_1}.part").read_bytes() == CONTENT[PART_1][:CHUNK]


def test_an_unknown_dataset_gives_the_servers_words_and_the_way_by_hand(
    dataverse: Dataverse, tmp_path: Path, waits: list[float]
) -> None:
    with pytest.raises(SkinlesionError) as raised:
        download(tmp_path, server=dataverse.url, doi="doi:10.5072/FK2/NONE")
    message = str(raised.value)
    assert "HTTP 404 Not Found (Dataset with Persistent ID doi:10.5072/FK2/NONE not found.)" in (
        message
    )
    assert "open https://doi.org/10.5072/FK2/NONE in a browser" in message
    assert all(name in message for name in CONTENT)
    assert str(tmp_path) in message
    assert waits == []


def test_a_busy_server_is_asked_again(
    dataverse: Dataverse, tmp_path: Path, waits: list[float]
) -> None:
    dataverse.statuses = [503, 429]
    download(tmp_path, server=dataverse.url)
    assert names(tmp_path) == set(CONTENT)
    assert waits == [1, 2]


def test_a_server_that_stays_busy_is_an_error(dataverse: Dataverse, tmp_path: Path) -> None:
    dataverse.statuses = [503] * 9
    with pytest.raises(SkinlesionError, match=r"HTTP 503 .* by hand"):
        download(tmp_path, server=dataverse.url, retries=2)


def test_a_refused_connection_is_an_error_that_gives_the_way_by_hand(
    tmp_path: Path, waits: list[float]
) -> None:
    with socket.socket() as bound:  # bound, so that nobody else listens there
        bound.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(SkinlesionError) as raised:
            download(tmp_path, server=server, retries=2)
    assert "Connection refused" in str(raised.value)
    assert "open https://doi.org/10.7910/DVN/DBW86T in a browser" in str(raised.value)
    assert waits == [1, 2]


@pytest.mark.parametrize("listing", [b"<html>Please log in</html>", b"[]", b'{"data": null}'])
def test_an_answer_that_is_no_listing_is_an_error(
    dataverse: Dataverse, tmp_path: Path, listing: bytes
) -> None:
    dataverse.listing = listing
    with pytest.raises(SkinlesionError, match="not a Dataverse listing"):
        download(tmp_path, server=dataverse.url)


def test_a_dataset_without_a_needed_file_says_what_it_lacks_and_has(
    dataverse: Dataverse, tmp_path: Path
) -> None:
    del dataverse.files[0]
    with pytest.raises(SkinlesionError, match=f"has no {PART_2}; it has HAM10000_images_part_1,"):
        download(tmp_path, server=dataverse.url)
