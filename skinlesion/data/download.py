"""Fetch HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161) from Harvard Dataverse.

What the code relies on (guides.dataverse.org, native API and data access API):

- The listing gives each file's ``label`` and ``dataFile``: ``id``, ``filesize``, ``checksum {type,
  value}`` (``md5`` alone on old servers). The type is MD5, SHA-1, SHA-256 or SHA-512.
- A table is *ingested* on upload: it is listed and served as tab-separated text (``.tab``). Only
  such a file has ``originalFileFormat`` and ``originalFileSize``, and only such a file may be asked
  for with ``format=original``: any other answers 404 to it (IQSS/dataverse#7505).
- The checksum of an ingested file is that of the original upload, not of the ``.tab``, although
  ``filesize`` is that of the ``.tab`` (IQSS/dataverse#7275, #5321). The original is therefore what
  is fetched and verified.
- Files come from S3 by a redirect to a link that expires within the hour, so every attempt asks
  Dataverse for a new one; S3 honours Range.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import requests
from tqdm import tqdm

from skinlesion.errors import SkinlesionError, listing

FILES = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip", "HAM10000_metadata.csv")

HEADERS = {
    # Harvard's firewall answers 403 to the default name of requests (dataverse.harvard.edu#479).
    "User-Agent": "skinlesion",
    # Range and the checksum both mean the stored bytes, not a compressed transfer of them.
    "Accept-Encoding": "identity",
}
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
CHUNK = 1 << 16  # bytes; what is lost at most when a connection breaks
LONGEST_WAIT = 60  # seconds
ALGORITHMS = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """One file of the dataset: its name here, and its address, size and checksum there."""

    name: str
    url: str
    size: int  # bytes; what the listing says, so good for a forecast only
    checksum_type: str
    checksum: str


def download(
    root: Path,
    *,
    server: str = "https://dataverse.harvard.edu",
    doi: str = "doi:10.7910/DVN/DBW86T",
    retries: int = 5,
    progress: bool = True,
) -> list[Path]:
    """Fetch the two image archives and the metadata CSV of HAM10000 into a folder.

    Broken off at any moment, the same call goes on from the bytes that are there (``<name>.part``).
    A file gets its name only after its checksum was found right; one that has both is skipped.

    Args:
        root: the folder; made if missing.
        server: base address of the Dataverse installation.
        doi: persistent identifier of the dataset, with ``doi:`` in front.
        retries: further attempts after a passing fault (connection, HTTP 429 or 5xx), counted anew
            whenever new bytes arrived.
        progress: show a bar per file; never shown where stderr is no terminal.

    Returns:
        The paths of ``FILES``, in that order.

    Raises:
        SkinlesionError: no network, an HTTP error, an answer that is no such dataset, a file
            without a checksum or with a wrong one, too little space, or a folder that cannot be
            written. A ``.part`` is kept except after a wrong checksum.

    Source: doi:10.7910/DVN/DBW86T (CC BY-NC 4.0).
    """
    with _explained(root, server, doi), requests.Session() as session:
        session.headers.update(HEADERS)
        root.mkdir(parents=True, exist_ok=True)
        remotes = _list_files(session, server, doi, retries)
        missing = [remote for remote in remotes if not _already_there(root, remote)]
        _require_space(root, missing)
        for remote in missing:
            _fetch(session, remote, root, retries, progress)
    return [root / remote.name for remote in remotes]


@contextmanager
def _explained(root: Path, server: str, doi: str) -> Iterator[None]:
    """Turn a fault of the network or of the disk into an error that says what to do."""
    resume = "What has arrived is kept: the same command goes on from there."
    try:
        yield
    # First, because it is an OSError, too.
    except requests.RequestException as error:
        raise SkinlesionError(
            f"The download from {server} failed: {_reason(error)}. {resume} "
            f"Or by hand: open https://doi.org/{doi.removeprefix('doi:')} in a browser and put "
            f"{FILES[0]}, {FILES[1]} and the metadata (in its original format, CSV, as {FILES[2]}) "
            f"into {root}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SkinlesionError(
                f"No space is left for {root}. Make room, then repeat. {resume}"
            ) from error
        raise SkinlesionError(
            f"Cannot write into {root}: {error}. Mend its permissions or choose another folder."
        ) from error


def _reason(error: BaseException) -> str:
    """Return the innermost readable message: requests wraps urllib3, which wraps the socket."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    return next((arg for arg in error.args if isinstance(arg, str)), str(error)).rstrip(".")


def _list_files(session: requests.Session, server: str, doi: str, retries: int) -> list[RemoteFile]:
    """Return what the dataset's latest published version says of ``FILES``, in that order."""

    def ask() -> Any:
        url = f"{server}/api/datasets/:persistentId/"
        response = session.get(url, params={"persistentId": doi}, timeout=TIMEOUT)
        _check(response)
        return response.json()

    try:
        entries = _retry(ask, retries)["data"]["latestVersion"]["files"]
        # By stem, because ingest changes the ending.
        listed = {PurePosixPath(entry["label"]).stem: entry["dataFile"] for entry in entries}
        absent = [name for name in FILES if Path(name).stem not in listed]
        if absent:
            raise SkinlesionError(
                f"{doi} at {server} has no {listing(absent)}; it has {listing(sorted(listed))}. "
                "Check the DOI and the server."
            )
        return [_remote_file(name, listed[Path(name).stem], server) for name in FILES]
    except (LookupError, TypeError, AttributeError, requests.JSONDecodeError) as error:
        raise requests.exceptions.InvalidJSONError(
            f"its answer about {doi} is not a Dataverse listing of files"
        ) from error


def _remote_file(name: str, data_file: dict[str, Any], server: str) -> RemoteFile:
    """Return the file that a listing's ``dataFile`` describes; as uploaded, where ingested."""
    ingested = bool(data_file.get("originalFileFormat"))
    size = data_file.get("originalFileSize") or data_file.get("filesize") or 0
    checksum = data_file.get("checksum") or {"type": "MD5", "value": data_file.get("md5")}
    if checksum["type"] not in ALGORITHMS or not checksum["value"]:
        raise SkinlesionError(
            f"{server} lists {name} with the checksum {checksum}, so it cannot be verified; known "
            f"are {', '.join(ALGORITHMS)}. Use https://dataverse.harvard.edu."
        )
    return RemoteFile(
        name=name,
        url=f"{server}/api/access/datafile/{data_file['id']}" + "?format=original" * ingested,
        size=size,
        checksum_type=checksum["type"],
        checksum=checksum["value"].lower(),
    )


def _check(response: requests.Response) -> None:
    """Raise for an HTTP error, in the server's own words where it has some."""
    if response.ok:
        return
    try:
        words = f" ({response.json()['message']})"
    except (ValueError, LookupError, TypeError):
        words = ""
    # The first address: that of a redirect is a page of signatures.
    url = [*response.history, response][0].url
    raise requests.HTTPError(
        f"HTTP {response.status_code} {response.reason}{words} for {url}", response=response
    )


def _retry(attempt: Callable[[], T], retries: int, reached: Callable[[], int] = lambda: 0) -> T:
    """Return the attempt's result; after a passing fault wait, ever longer, and try again.

    Growth of ``reached`` over its highest value so far starts the count anew: a slow line that
    breaks often is no reason to give up as long as it gets on.
    """
    failures, highest = 0, reached()
    while True:
        try:
            return attempt()
        except requests.RequestException as error:
            if reached() > highest:
                failures, highest = 0, reached()
            failures += 1
            if failures > retries or not _is_passing(error):
                raise
            wait = min(2 ** (failures - 1), LONGEST_WAIT)
            tqdm.write(f"{_reason(error)}: trying again in {wait} s ({failures} of {retries})")
            time.sleep(wait)


def _is_passing(error: requests.RequestException) -> bool:
    """Tell whether the same request may well succeed a little later."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code == 429 or error.response.status_code >= 500
    broken = requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError
    return isinstance(error, broken)


def _already_there(root: Path, remote: RemoteFile) -> bool:
    """Tell, here and on the terminal, whether a file needs no download."""
    path = root / remote.name
    if not path.exists():
        return False
    intact = _digest(path, remote) == remote.checksum
    verdict = "is complete: skipped" if intact else "is not the published file: replaced"
    tqdm.write(f"{path} {verdict} ({remote.checksum_type})")
    return intact


def _digest(path: Path, remote: RemoteFile) -> str:
    """Return a file's digest by the algorithm of the published checksum."""
    name = ALGORITHMS[remote.checksum_type]
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.new(name, usedforsecurity=False)
        ).hexdigest()


def _part(root: Path, remote: RemoteFile) -> Path:
    return root / f"{remote.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_space(root: Path, remotes: list[RemoteFile]) -> None:
    """Raise before the first byte when the disk cannot hold the bytes still to come."""
    needed = sum(max(remote.size - _size(_part(root, remote)), 0) for remote in remotes)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise SkinlesionError(
            f"The download needs {tqdm.format_sizeof(needed, 'B')} in {root}, where "
            f"{tqdm.format_sizeof(free, 'B')} are free. Make room or choose another folder."
        )


def _fetch(
    session: requests.Session, remote: RemoteFile, root: Path, retries: int, progress: bool
) -> None:
    """Download one file, verify it and give it its name."""
    part = _part(root, remote)
    with tqdm(
        desc=remote.name,
        total=remote.size or None,
        initial=_size(part),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=None if progress else True,  # None: quiet where stderr is no terminal
    ) as bar:
        _retry(lambda: _stream(session, remote, part, bar), retries, lambda: _size(part))
    found = _digest(part, remote)
    if found != remote.checksum:
        part.unlink()
        raise SkinlesionError(
            f"{remote.name} arrived damaged: its {remote.checksum_type} should be "
            f"{remote.checksum} and is {found}. It was removed: repeat the command to download it "
            "again. If that gives the same error, the published file or a proxy is at fault."
        )
    os.replace(part, root / remote.name)


def _stream(session: requests.Session, remote: RemoteFile, part: Path, bar: "tqdm[Any]") -> None:
    """Append to ``part`` what it lacks of the remote file, in one request."""
    offset = _size(part)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with session.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        # Nothing follows the bytes that are there: the checksum tells whether they are the file.
        if response.status_code == requests.codes.requested_range_not_satisfiable and offset:
            return
        _check(response)
        resumed = response.status_code == requests.codes.partial_content
        if not resumed:
            bar.initial = 0  # reset keeps it, and would show a negative speed
            bar.reset()
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
