"""The house stays small: how many lines it has, and how far it is from the command to a step."""

import subprocess
import sys
from pathlib import Path

from skinlesion.text import aligned

ROOT = Path(__file__).parents[1]
# The aim, and what each may have at most until it is reached: it is lowered with what goes, and was
# raised once more, from 13,930 and 11,670, for the last of the rivals and of the honest numbers.
AIM = {"skinlesion": 11_000, "benchmarks": 900, "tests": 9_000}
LINES = {"skinlesion": 15_010, "benchmarks": 1_340, "tests": 12_345}
IMPORTED_AIM = (28, 3_500)  # files and lines of ours that training imports
IMPORTED = (28, 3_990)  # 3,800 before the rivals of the paper were choices
LISTING = """
import sys
import skinlesion.training.run
print(*sorted(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "skinlesion"))
"""


def lines(*files):
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_no_part_of_the_house_outgrows_its_limit():
    counted = {name: lines(*(ROOT / name).rglob("*.py")) for name in LINES}
    rooms = sorted(path for path in (ROOT / "skinlesion").iterdir() if path.is_dir())
    own = {f"  {room.name}/": lines(*room.rglob("*.py")) for room in rooms}
    own = {name: count for name, count in own.items() if count}
    rows = [["lines of Python", "now", "at most", "aim"]]
    rows += [[n, f"{count:,}", f"{LINES[n]:,}", f"{AIM[n]:,}"] for n, count in counted.items()]
    rows[2:2] = [[name, f"{count:,}", "", ""] for name, count in own.items()]
    print(f"\n{aligned(rows)}")
    assert not {name: count for name, count in counted.items() if count > LINES[name]}


def test_few_files_lie_between_the_command_and_a_training_step():
    done = subprocess.run(
        [sys.executable, "-c", LISTING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [Path(name) for name in done.stdout.split()]
    count, length = len(files), lines(*files)
    print(f"\ntraining imports {count} files of {length:,} lines of ours")
    print(f"at most {IMPORTED}, aim {IMPORTED_AIM}")
    print("  " + "\n  ".join(str(file.relative_to(ROOT)) for file in files))
    assert count <= IMPORTED[0]
    assert length <= IMPORTED[1]
