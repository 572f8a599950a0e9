"""What became of each job."""

from pathlib import Path

from skinlesion.runs.outcome import Failures, Outcome, read_outcomes, summary

DONE = Outcome(["a=1", "b=2"], "done", "runs/x", "", 61.4)
FAILED = Outcome(["a=1", "b=3"], "failed", "", "first line\nsecond line", 3600)
SKIPPED = Outcome(["a=1", "b=4"], "skipped", "runs/y", "", 0.2)


def test_the_summary_names_what_differs_and_counts() -> None:
    assert summary([DONE, FAILED, SKIPPED]).splitlines() == [
        "done        0:01:01  b=2",
        "failed      1:00:00  b=3",
        "                     first line",
        "                     second line",
        "skipped     0:00:00  b=4",
        "3 jobs: 1 done (trained now), 1 skipped (was done before), 1 failed (see why)",
    ]


def test_a_single_job_is_named_whole() -> None:
    assert summary([DONE]).splitlines()[0].endswith("a=1 b=2")


def test_outcomes_are_read_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    for number, outcome in ((10, SKIPPED), (9, FAILED), (0, DONE)):
        outcome.write(tmp_path / f"{number}.json")
    assert read_outcomes(tmp_path) == [DONE, FAILED, SKIPPED]


def test_a_failure_is_remembered_until_the_job_succeeds(tmp_path: Path) -> None:
    failures = Failures(tmp_path)
    assert failures.find("abc") is None
    failures.record("abc", "out of memory")
    assert failures.find("abc")["why"] == "out of memory"
    assert failures.find("abd") is None
    failures.forget("abc")
    failures.forget("abc")
    assert failures.find("abc") is None
