"""The README's commands on real images: train, predict, explain, export, report, tables, bench.

They are left out unless asked for (`make test-real`), and skipped where the images are not.
"""

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "ham10000-200x150", SHARED / "weights"
BIN = ROOT / ".venv" / "bin"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the images in {DATA}"),
]
FILES = (
    *("config.yaml", "split.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    *("predictions.csv", "metrics.json", "history.csv", "provenance.json", "DONE"),
    "figures/learning_curves.png",
)
KINDS = (
    *("confusion_matrix", "roc", "precision_recall", "reliability", "per_class_f1"),
    *("risk_coverage", "mistakes", "attention"),
)


def call(*words: object, code: int = 0) -> str:
    """Run a command in the project's folder, and return what it prints."""
    done = subprocess.run(
        [*map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


def train(runs: Path, *overrides: str) -> Path:
    """Train on 400 images, and return the run's directory."""
    call(
        *(BIN / "python", "train.py", f"machine.data={DATA}", "data.limit=400"),
        *(f"machine.cache={runs.parent / 'cache'}", f"machine.runs={runs}", *overrides),
    )
    return max(runs.glob("*/*/seed0/DONE"), key=lambda path: path.stat().st_mtime_ns).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """A run of each protocol, trained from pretrained weights."""
    weights = f"weights={WEIGHTS / 'mobilenetv3_small_100.safetensors'}"
    recipe = ["backbone=mobilenet_v3_small", weights, "trainer.max_epochs=2"]
    return {
        split: train(folder / "runs", *recipe, f"split={split}") for split in ("paper", "lesion")
    }


@pytest.fixture(scope="module")
def photos(folder: Path) -> Path:
    with zipfile.ZipFile(DATA / "HAM10000_images_part_1.zip") as archive:
        names = [name for name in archive.namelist() if "ISIC_002430" in name][:4]
        for name in names:
            target = folder / "photos" / Path(name).name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(archive.read(name))
    return folder / "photos"


def predict(model: Path, photos: Path, code: int = 0) -> list[dict]:
    table = DATA / "HAM10000_metadata.csv"
    out = call(BIN / "skinlesion", "predict", model, photos, "--json", "--csv", table, code=code)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(("split", "parts"), [("paper", ["val"]), ("lesion", ["val", "test"])])
def test_a_run_of_each_protocol_is_complete(
    runs: dict[str, Path], split: str, parts: list[str]
) -> None:
    metrics = json.loads((runs[split] / "metrics.json").read_text())
    assert (metrics["protocol"], [*metrics["parts"]]) == (split, parts)
    drawn = [f"figures/{k}_{p}.{e}" for k in KINDS for p in parts for e in ("png", "pdf")]
    assert not [name for name in (*FILES, *drawn) if not (runs[split] / name).exists()]
    assert (runs[split] / "history.csv").read_text().count("\n") == 3
    if split == "lesion":
        assert all(leak["leaked"] == 0 for leak in metrics["leak"].values())


def test_the_authors_run_is_trained_with_every_switch_as_released(folder: Path) -> None:
    weights = f"weights={WEIGHTS / 'mobilenetv3_large_100_rvm.safetensors'}"
    recipe = ["experiment=as_released", "backbone=mobilenet_v3_large", weights]
    run = train(folder / "released", *recipe, "trainer.max_epochs=1")
    assert "name: released" in (run / "config.yaml").read_text()


def test_a_run_and_its_exported_file_say_the_same_and_a_broken_image_is_named(
    runs: dict[str, Path], photos: Path
) -> None:
    run, broken = runs["lesion"], photos / "broken.jpg"
    broken.write_text("no picture")
    answers = predict(run, photos, code=1)
    broken.unlink()
    assert ["broken.jpg" in answer["image"] for answer in answers if "error" in answer] == [True]
    answers = [answer for answer in answers if "error" not in answer]
    call(BIN / "skinlesion", "export", run)
    assert predict(run / "export" / "model.safetensors", photos) == answers
    assert len(answers) == 4
    assert all(abs(sum(a["probabilities"].values()) - 1) < 1e-6 for a in answers)


def test_a_run_is_explained_and_reported(runs: dict[str, Path], photos: Path, folder: Path) -> None:
    image = sorted(photos.glob("ISIC*"))[0]
    call(BIN / "skinlesion", "explain", runs["paper"], image, "--age", 45, "--out", folder / "maps")
    assert (folder / "maps" / f"{image.stem}_attention.pdf").stat().st_size
    call("make", "report", f"ARGS=machine.runs={folder / 'runs'}")
    assert (folder / "runs" / "report.html").stat().st_size > 100_000


def test_a_table_is_trained_once_and_then_only_written(folder: Path) -> None:
    overrides = [
        *(f"machine.data={DATA}", f"weights={WEIGHTS}", "data.limit=400", "seed=0"),
        *("backbone.input_size=96", "trainer.max_epochs=1", f"machine.runs={folder / 'table'}"),
        f"machine.cache={folder / 'cache'}",
    ]
    command = ("make", "table10", f"ARGS={' '.join(overrides)}")
    assert "1 done (trained now)" in call(*command)
    again = call(*command)
    assert "1 skipped (was done before)" in again
    assert "1 runs, 0 not run" in again
    tables = folder / "table" / "tables"
    assert "0.8614" in (tables / "table10.csv").read_text()
    markdown = (tables / "table10.md").read_text()
    assert r"| MobileNetV3Large\[:240\] | published | 0.86" in markdown
    assert "not run" not in markdown


def test_a_small_benchmark_measures_and_writes_its_page(folder: Path) -> None:
    words = [
        *("attention limits --backbones mobilenet_v3_small --batch 8 backbone.input_size=64",),
        *(f"--out {folder / 'bench'}", f"machine.data={DATA}", "data.limit=400"),
        f"machine.cache={folder / 'cache'}",
    ]
    call("make", "bench", f"ARGS={' '.join(words)}")
    (device,) = (folder / "bench").iterdir()
    for name in ("attention", "limits"):
        rows = json.loads((device / f"{name}-mobilenet_v3_small.json").read_text())["rows"]
        assert rows
        assert not any("problem" in row for row in rows)
    assert (device / "bench.md").read_text().startswith("# ")
