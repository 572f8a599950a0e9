"""A run waits for a GPU of its own."""

from skinlesion.training.devices import take_one


def test_a_run_waits_for_a_gpu_that_is_taken(tmp_path, monkeypatch):
    other = take_one(["a"], tmp_path)
    other.__enter__()
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        other.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    with take_one(["a"], tmp_path, pause=3) as index:
        assert index == 0
    assert waits == [3]
