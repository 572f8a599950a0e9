"""Files and folders are written whole or not at all."""

import errno
import os

import pytest

from skinlesion.files import ABANDONED, replacing, replacing_folder


def test_what_the_disk_refuses_names_the_file_and_leaves_the_old_one(tmp_path):
    def fill(half):
        half.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), replacing(path) as new:
        fill(new)
    with pytest.raises(OSError, match="a library's own"), replacing(path):
        raise OSError("a library's own")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("table.csv", "old")]


def test_a_folder_keeps_what_is_not_ours_and_drops_what_a_killed_process_left(tmp_path):
    folder, left, at_work = (tmp_path / name for name in ("out", ".out.left", ".out.other"))
    for path in (folder, left, at_work):
        path.mkdir()
    (folder / "notes.txt").write_text("theirs")
    (folder / "old.onnx").write_text("ours")
    long_ago = left.stat().st_mtime - 2 * ABANDONED
    os.utime(left, (long_ago, long_ago))
    with replacing_folder(folder, {"old.onnx"}) as beside:
        (beside / "new.onnx").write_text("new")
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "new.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out.other"}
