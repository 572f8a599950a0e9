"""What became of each job."""

from skinlesion.runs.outcome import Outcome, read_outcomes, summary

DONE = Outcome(["a=1", "b=2"], "done", "runs/x", "", 61.4)
FAILED = Outcome(["a=1", "b=3"], "failed", "", "first line\nsecond line", 3600)
SKIPPED = Outcome(["a=1", "b=4"], "skipped", "runs/y", "", 0.2)


def test_the_summary_names_what_differs_and_counts():
    assert summary([DONE, FAILED, SKIPPED]).splitlines() == [
        "done        0:01:01  b=2",
        "failed      1:00:00  b=3",
        "                     first line",
        "                     second line",
        "skipped     0:00:00  b=4",
        "3 jobs: 1 done (trained now), 1 skipped (was done before), 1 failed (see why)",
    ]
    assert summary([DONE]).splitlines()[0].endswith("a=1 b=2")  # a single job is named whole


def test_outcomes_are_read_in_the_order_of_the_jobs(tmp_path):
    for number, outcome in ((10, SKIPPED), (9, FAILED), (0, DONE)):
        outcome.write(tmp_path / f"{number}.json")
    assert read_outcomes(tmp_path) == [DONE, FAILED, SKIPPED]
