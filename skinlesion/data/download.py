"""Fetch HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161) from Harvard Dataverse.

The files are those of doi:10.7910/DVN/DBW86T, version 4.0 (CC BY-NC 4.0), with the sizes and MD5s
that Dataverse publishes; for the ISIC 2018 test set and the masks, it is asked. A table is fetched
as it was uploaded (`format=original`): otherwise Dataverse serves a tab-separated text of its own,
to which the checksum does not belong.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import Retry

from skinlesion.errors import SkinlesionError

SERVER = "https://dataverse.harvard.edu"
# Harvard's firewall answers 403 to the default name of requests; Range and the checksum both mean
# the stored bytes, not a compressed transfer of them.
HEADERS = {"User-Agent": "skinlesion", "Accept-Encoding": "identity"}
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
CHUNK = 1 << 16  # bytes; what is lost at most when a connection breaks
# Each attempt asks Dataverse anew: the address that it sends us on to expires within the hour.
RETRY = Retry(4, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
KEPT = "What has arrived is kept: the same command goes on from there."


class RemoteFile(NamedTuple):
    """One file of the data set: its name, its place at the server, its bytes and their MD5."""

    name: str
    place: str
    size: int
    md5: str


TEST = ("ISIC2018_Task3_Test_Images.zip", "ISIC2018_Task3_Test_GroundTruth.csv")
LISTING = "api/datasets/:persistentId/?persistentId=doi:10.7910/DVN/DBW86T"
IMAGES, TABLE = "HAM10000_images_part_", "HAM10000_metadata.csv"
FILES = (
    RemoteFile(f"{IMAGES}1.zip", "3172585", 1_366_522_108, "4639bfa73ab251610530a97c898e6e46"),
    RemoteFile(f"{IMAGES}2.zip", "3172584", 1_403_566_547, "da43d6cc50f6613013be07e8986b384b"),
    RemoteFile(TABLE, "4338392?format=original", 690_218, "8f85fb1aa29d80a2797247e434deb79d"),
)


def download(
    root: Path,
    server: str = SERVER,
    files: Sequence[RemoteFile] = FILES,
    asked: Sequence[str] = (),
) -> list[Path]:
    """Fetch files into a folder: images and table of HAM10000, or those that are asked for by name.

    Broken off at any moment, the same call goes on from the bytes that are there (`<name>.part`).
    A file gets its name only after its checksum was found right; one that has both is skipped.

    Raises:
        SkinlesionError: no network, no space, a folder that cannot be written, or a file that is
            not the published one.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        files = _listed(server, asked) if asked else files
        missing = [file for file in files if not _is_there(root / file.name, file)]
        needed = sum(file.size - _size(root / f"{file.name}.part") for file in missing)
        if needed > (free := shutil.disk_usage(root).free):
            raise SkinlesionError(
                f"The download needs {needed / 1e9:.1f} GB more in {root}, where {free / 1e9:.1f} "
                "GB are free. Make room or choose another folder."
            )
        with requests.Session() as session:
            session.headers.update(HEADERS)
            for address in ("https://", server):
                session.mount(address, HTTPAdapter(max_retries=RETRY))
            for file in missing:
                url = f"{server}/api/access/datafile/{file.place}"
                _fetch(session, url, root / file.name, file)
    except (requests.RequestException, ValueError) as error:  # ValueError: an odd header
        why = getattr(error.args[0], "reason", error) if error.args else error
        raise SkinlesionError(
            f"The download from {server} failed: {why}. {KEPT} Or by hand: open "
            f"https://doi.org/10.7910/DVN/DBW86T in a browser and put "
            f"{', '.join(asked or [f.name for f in files])} (in its original format) into {root}"
        ) from None
    except OSError as error:
        raise SkinlesionError(f"Cannot write into {root}: {error}. {KEPT}") from None
    return [root / file.name for file in files]


def _listed(server: str, names: Sequence[str]) -> list[RemoteFile]:
    """Return files of the record, a CSV as it was uploaded, as Dataverse lists them."""
    answer = requests.get(f"{server}/{LISTING}", headers=HEADERS, timeout=TIMEOUT)
    try:
        listed = [file["dataFile"] for file in answer.json()["data"]["latestVersion"]["files"]]
        by_name = {file["filename"]: file for file in listed}
        files = []
        for name in names:
            table = name.endswith(".csv")  # which Dataverse keeps as its own .tab
            told = by_name[name.replace(".csv", ".tab")]
            place = f"{told['id']}?format=original" if table else str(told["id"])
            size = int(told["originalFileSize" if table else "filesize"])
            files.append(RemoteFile(name, place, size, told["md5"]))
        return files
    except (LookupError, TypeError) as error:
        raise ValueError(f"its list of files lacks {error}") from None


def _fetch(session: requests.Session, url: str, path: Path, file: RemoteFile) -> None:
    """Download one file, again and again while it gets on, verify it and give it its name."""
    part = path.with_name(f"{file.name}.part")
    while (reached := _size(part)) < file.size:
        try:
            _append(session, url, part, file)
        except BROKEN as error:
            if _size(part) <= reached:
                raise
            tqdm.write(f"{error}: going on from {_size(part):,} bytes")
    if (found := _md5(part)) != file.md5:
        part.unlink()
        raise SkinlesionError(
            f"{file.name} arrived damaged: its MD5 should be {file.md5} and is {found}. It was "
            "removed: repeat the command. If that ends alike, a proxy may be at fault."
        )
    os.replace(part, path)


def _append(session: requests.Session, url: str, part: Path, file: RemoteFile) -> None:
    """Append to `part` what it lacks of the file, and not a byte more, in one request."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if not response.ok:  # without the address that it sends us on to, a page of signatures
            raise requests.HTTPError(f"HTTP {response.status_code} {response.reason} for {url}")
        resumed = response.status_code == requests.codes.partial_content
        length = int(response.headers.get("Content-Length", file.size - start * resumed))
        if length + start * resumed != file.size:
            raise SkinlesionError(f"{url}: {length:,} bytes, which are not {file.name}")
        bar = tqdm(desc=file.name, total=file.size, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if resumed else "wb") as out, bar:
            bar.update(out.tell())
            for chunk in response.iter_content(CHUNK):
                bar.update(out.write(chunk[: file.size - out.tell()]))
                if out.tell() >= file.size:
                    return
    raise requests.ConnectionError("the connection broke off")


def _is_there(path: Path, file: RemoteFile) -> bool:
    """Tell, here and on the terminal, whether a file needs no download."""
    if not path.exists():
        return False
    intact = path.stat().st_size == file.size and _md5(path) == file.md5
    tqdm.write(f"{path} is {'complete: skipped' if intact else 'not the published file: replaced'}")
    return intact


def _md5(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "md5").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
