"""What of an image the network sees, by its lesion's mask."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinlesion.data.archive import MASKS, ImageArchive
from skinlesion.data.cache import open_cache
from skinlesion.data.region import keep_region
from skinlesion.errors import SkinlesionError

IMAGE = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)
MASK = np.zeros((30, 40), bool)
MASK[10:20, 12:18] = True  # 10 rows, 6 columns


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        ("crop", slice(10, 20), slice(10, 20)),
        ("dilated_crop", slice(9, 21), slice(9, 21)),
        ("background_removed_crop", slice(10, 20), slice(10, 20)),
        ("background_removed", slice(0, 30), slice(0, 40)),
    ],
)
def test_each_region_by_hand(region: Any, rows: slice, columns: slice) -> None:
    seen = IMAGE * MASK[..., None] if "background" in region else IMAGE
    np.testing.assert_array_equal(keep_region(IMAGE, MASK, region), seen[rows, columns])
    # A mask at twice the size means the same.
    twice = MASK.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(keep_region(IMAGE, twice, region), seen[rows, columns])


def test_a_fourth_channel_is_the_mask_and_the_cache_holds_it(archive: Path, place: Any) -> None:
    found = keep_region(IMAGE, MASK, "fourth_channel")
    np.testing.assert_array_equal(found[..., :3], IMAGE)
    np.testing.assert_array_equal(found[..., 3], np.where(MASK, 255, 0))
    masked = ImageArchive(archive, "fourth_channel")
    images = open_cache(place.cache, masked, ["ISIC_9000000"], 48).images
    assert images.shape == (1, 48, 48, 4)
    assert 0.01 < (images[..., 3] == 255).mean() < 0.99


def test_a_square_stays_in_the_image_and_a_lesion_wider_than_it_is_high_keeps_its_width() -> None:
    corner, wide = np.zeros((2, 30, 40), bool)
    corner[25:, 30:38] = True
    np.testing.assert_array_equal(keep_region(IMAGE, corner, "crop"), IMAGE[22:30, 30:38])
    wide[14:16, 2:38] = True
    np.testing.assert_array_equal(keep_region(IMAGE, wide, "crop"), IMAGE[:, 2:38])


@pytest.mark.parametrize(
    ("mask", "said"),
    [(np.zeros((30, 40), bool), "its mask is empty"), (MASK.T, r"a mask \(40, 30\) for an image")],
)
def test_a_mask_that_cannot_be_is_said(mask: np.ndarray, said: str) -> None:
    with pytest.raises(SkinlesionError, match=said):
        keep_region(IMAGE, mask, "crop")


def test_the_cache_holds_the_part_and_knows_it_from_the_whole(archive: Path, place: Any) -> None:
    ids = [f"ISIC_{9_000_000 + number}" for number in range(9)]
    whole, part = (
        open_cache(place.cache, ImageArchive(archive, region), ids, 48)
        for region in (None, "background_removed")
    )
    assert whole.digest != part.digest
    dark = (part.images == 0).all(-1).mean((1, 2))
    assert ((dark > 0.3) & (dark < 0.99)).all()
    lit = part.images.max(-1) > 0
    same = part.images[lit] == whole.images[lit]
    assert 0.8 < same.mean() < 1  # the border is a mixture of lesion and black


def test_images_without_a_mask_are_named(archive: Path, place: Any, tmp_path: Path) -> None:
    root = shutil.copytree(archive, tmp_path / "copy")
    (root / MASKS).unlink()
    (root / "masks").mkdir()
    file = io.BytesIO()
    Image.new("1", (96, 72), 1).save(file, "PNG")
    for number in range(79):
        (root / "masks" / f"ISIC_{9_000_000 + number}_segmentation.png").write_bytes(
            file.getvalue()
        )
    with pytest.raises(SkinlesionError, match=r"without a mask \(.*\): ISIC_9000079\n"):
        place.open(root, region="crop")
    assert len(place.open(root).table) == 80
