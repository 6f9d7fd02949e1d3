"""A run's folder gives what is asked of it."""

from disca.training.records.run_folder import RunFolder


def test_the_last_preview_is_that_of_the_latest_iteration(tmp_path):
    run = RunFolder(tmp_path)
    run.previews.mkdir()
    assert run.last_preview() is None
    for iteration in (7, 999_999, 1_000_000):
        run.preview(iteration).touch()
    assert run.last_preview() == run.preview(1_000_000)
