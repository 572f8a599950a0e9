"""From a folder to samples: one error that names all that is wrong, or everything a run needs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import decode
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.samples import Samples, check
from skinlesion.data.schema import Schema
from skinlesion.data.split import Split
from skinlesion.errors import SkinlesionError

Write = Callable[..., Path]

CONF = Path(__file__).resolve().parents[2] / "conf"
HAM10000 = Schema.from_config(OmegaConf.load(CONF / "data" / "ham10000.yaml"))
PAPER = Split("paper", by="image", seed=0, val_fraction=0.1, test_fraction=0)
LESION = Split("lesion", by="lesion", seed=0, val_fraction=0.1, test_fraction=0.1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def prepared(root: Path, cache: Path, split: Split = PAPER, limit: int | None = None) -> Samples:
    return check(root, HAM10000, cache, 16, split, limit).load(cache, 16)


def refusal(root: Path, cache: Path, split: Split = PAPER) -> str:
    with pytest.raises(SkinlesionError) as caught:
        prepared(root, cache, split)
    return str(caught.value)


def nothing_built(cache: Path) -> bool:
    return not [path for path in cache.glob("*") if path.is_dir()]


# --- samples ------------------------------------------------------------------------------------


def test_each_sample_has_its_image_label_and_metadata(
    write: Write, cache: Path, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    samples = prepared(write("zips"), cache)
    rows = table.set_index("image_id")
    assert len(samples.frame) == 58  # two have no age
    assert samples.labels.dtype == np.int64
    for i, row in samples.frame.iterrows():
        image_id = row["image_id"]
        np.testing.assert_array_equal(
            samples.images[samples.rows[i]], decode(jpegs[image_id], 16), err_msg=image_id
        )
        assert CLASSES[samples.labels[i]] == rows.loc[image_id, "dx"]
        assert row["age"] == float(rows.loc[image_id, "age"])


def test_every_layout_gives_the_same_samples(write: Write, layout: str, cache: Path) -> None:
    expected = prepared(write("folders"), cache)
    found = prepared(write(layout), cache)
    pd.testing.assert_frame_equal(found.frame, expected.frame)
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.digest == expected.digest
    assert found.encoder == expected.encoder


def test_the_digest_changes_with_the_table_and_with_the_images(
    write: Write, cache: Path, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    digests = {prepared(write(), cache).digest, prepared(write(), cache).digest}
    assert len(digests) == 1
    older = table.assign(age=table["age"].replace("20", "80"))
    digests.add(prepared(write(table=older), cache).digest)
    first, second = sorted(jpegs)[:2]
    swapped = jpegs | {first: jpegs[second], second: jpegs[first]}
    digests.add(prepared(write(jpegs=swapped), cache).digest)
    assert len(digests) == 3


def test_the_encoder_learns_from_the_training_images_only(
    write: Write, cache: Path, table: pd.DataFrame
) -> None:
    samples = prepared(write(), cache, LESION)
    train = samples.frame["split"] == "train"
    ages = table.set_index("image_id").loc[samples.frame.loc[train, "image_id"], "age"]
    assert samples.encoder.properties["age"].mean == pytest.approx(
        np.mean([float(age) for age in ages])
    )
    assert samples.encoder.properties["age"].mean != pytest.approx(samples.frame["age"].mean())


def test_setting_up_a_split_says_its_sizes_and_its_leak(
    write: Write, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skinlesion")
    samples = prepared(write(), cache)
    assert "split=paper: 58 images" in caplog.text
    assert f"leak: {samples.leak['val']['leaked']} of 7 val images" in caplog.text
    assert samples.leak["val"]["leaked"] > 0


def test_a_limit_takes_whole_lesions_of_every_class(write: Write, cache: Path) -> None:
    samples = prepared(write(), cache, replace(LESION, drop_missing_age=False), limit=40)
    # Four of the six nevi, and no fewer than four lesions of the others.
    assert samples.frame["dx"].value_counts().to_dict() == dict.fromkeys(CLASSES, 8)
    assert samples.frame.groupby("lesion_id").size().tolist() == [2] * 28
    assert len(samples.rows) == len(samples.labels) == 56


def test_a_limit_shares_the_cache_of_all_images(
    write: Write, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write()
    whole = prepared(root, cache)
    monkeypatch.setattr(ImageArchive, "read", None)
    part = prepared(root, cache, limit=40)
    assert part.digest == whole.digest
    position = whole.frame.set_index("image_id").index.get_indexer(part.frame["image_id"])
    np.testing.assert_array_equal(whole.rows[position], part.rows)


def test_the_config_finds_the_archive_in_the_environment(
    write: Write, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAM10000_ROOT", str(write("zips")))
    monkeypatch.setenv("SKINLESION_CACHE", str(cache))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["split=lesion", "seed=5"])
    split = instantiate(config.split, _target_="skinlesion.data.split.Split")
    assert split == replace(LESION, seed=5)
    samples = prepared(Path(config.machine.data), Path(config.machine.cache), split)
    assert len(samples.frame) == 58
    assert not nothing_built(cache)


# --- what goes wrong ----------------------------------------------------------------------------


def test_everything_wrong_is_in_one_error_before_anything_is_built(
    write: Write, cache: Path, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    ids = table["image_id"].tolist()
    table.loc[3, "image_id"] = ids[2]
    table.loc[[4, 5], "dx"] = "nevus"
    table.loc[8, "age"] = "-4"
    table.loc[10, "dx"] = "mel"
    table.loc[table["dx"] == "df", "age"] = ""
    del jpegs[ids[20]], jpegs[ids[21]]
    jpegs[ids[40]] = jpegs[ids[40]][:-100]
    jpegs[ids[41]] = b"GIF89a"

    message = refusal(write(table=table, jpegs=jpegs), cache)

    assert "7 things are wrong" in message
    for problem in (
        f"duplicate image ids: {ids[2]}\n",
        f"vasc: {ids[4]} (nevus), {ids[5]} (nevus)\n",
        f"age that is no number from 0 to 120: {ids[8]} (-4)\n",
        "lesions of two classes: HAM_bcc1\n",
        f"images in the table that are not on disk: {ids[20]}, {ids[21]}\n",
        "images that are truncated, or neither JPEG nor PNG: ",
        "a class would be missing from a part of split=paper",
        "df has 0",
    ):
        assert problem in message
    broken = next(line for line in message.splitlines() if "truncated" in line)
    assert {ids[40], ids[41]} == {image_id for image_id in ids if image_id in broken}
    assert "Mend the table or the images (HAM10000: fetch it again, make data)" in message
    assert nothing_built(cache)


def test_one_fault_is_one_line(write: Write, cache: Path, jpegs: dict[str, bytes]) -> None:
    jpegs["ISIC_0000000"] = b""
    root = write(jpegs=jpegs)
    assert refusal(root, cache).splitlines()[:2] == [
        f"{root} cannot be used, 1 thing is wrong:",
        "  - images that are truncated, or neither JPEG nor PNG: ISIC_0000000",
    ]


def test_a_class_without_a_whole_image_is_named(
    write: Write, cache: Path, table: pd.DataFrame, jpegs: dict[str, bytes]
) -> None:
    jpegs |= dict.fromkeys(table.loc[table["dx"] == "df", "image_id"], b"")
    message = refusal(write(jpegs=jpegs), cache)
    assert "2 things are wrong" in message
    assert "needs at least 2 images of each class: df has 0" in message


def test_a_table_without_rows_or_images_is_an_error(
    write: Write, cache: Path, table: pd.DataFrame
) -> None:
    assert "vasc has 0" in refusal(write(table=table[:0]), cache)
    assert "make data" in refusal(write(jpegs={}), cache)


def test_an_image_damaged_in_the_middle_is_named_by_the_decoding_and_leaves_no_cache(
    write: Write, cache: Path, jpegs: dict[str, bytes]
) -> None:
    data = jpegs["ISIC_0000033"]
    # Another start of an image among the pixels: libjpeg gives up.
    jpegs["ISIC_0000033"] = data[:700] + b"\xff\xd8" + data[700:]
    message = refusal(write("folders", jpegs=jpegs), cache)
    assert "1 of 60 images cannot be decoded: ISIC_0000033" in message
    assert nothing_built(cache)


def test_a_zip_damaged_in_the_middle_is_named_before_the_decoding(
    write: Write, cache: Path, jpegs: dict[str, bytes]
) -> None:
    root = write("zips")
    path = root / "HAM10000_images_part_2.zip"
    data = path.read_bytes()
    path.write_bytes(data.replace(jpegs["ISIC_0000033"][700:900], bytes(200)))
    assert "truncated, or neither JPEG nor PNG: ISIC_0000033" in refusal(root, cache)
    assert nothing_built(cache)


def test_images_that_went_bad_after_the_cache_was_built_are_found(
    write: Write, cache: Path, jpegs: dict[str, bytes]
) -> None:
    root = write("folders")
    prepared(root, cache)
    next(root.rglob("ISIC_0000033.jpg")).write_bytes(jpegs["ISIC_0000033"][:-300])
    assert "truncated, or neither JPEG nor PNG: ISIC_0000033" in refusal(root, cache)


def test_a_split_that_cannot_be_is_found_before_anything_is_built(
    write: Write, cache: Path
) -> None:
    message = refusal(write(), cache, replace(LESION, folds=9))
    assert "at least 9 lesions of each class: akiec has 4" in message
    assert nothing_built(cache)
