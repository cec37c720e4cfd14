"""Training and evaluation in Python use one thread."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from tests.training.models import data, system, trainer


class Watch(pl.Callback):
    """Notes the number of threads, and ends the training by an exception."""

    def __init__(self, ends_by: type[BaseException] | None = None) -> None:
        self.ends_by, self.seen = ends_by, set[int]()

    def on_train_batch_end(self, *_: object) -> None:
        self.seen.add(torch.get_num_threads())
        if self.ends_by is not None:
            raise self.ends_by

    def on_test_batch_end(self, *_: object) -> None:
        self.seen.add(torch.get_num_threads())


def test_one_thread_while_it_trains_and_tests(threads: int, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Catches threads that wait for each other on a busy machine, and threads gone for good afterwards."""
    watch, model = Watch(), system()
    run = trainer(tmp_path, max_steps=2, callbacks=[watch])
    for work in (run.fit, run.test):
        work(model, data())
        assert watch.seen == {1}
        assert torch.get_num_threads() == threads
        watch.seen.clear()
    assert "will override existing callbacks" not in caplog.text


@pytest.mark.parametrize("ends_by", [RuntimeError, KeyboardInterrupt])
def test_threads_come_back_after_an_exception(ends_by: type[BaseException], threads: int, tmp_path: Path):
    """Catches a notebook that is slow for the rest of the day after Ctrl-C."""
    watch = Watch(ends_by)
    with pytest.raises((RuntimeError, SystemExit)):
        trainer(tmp_path, max_steps=2, callbacks=[watch]).fit(system(), data())
    assert watch.seen == {1}
    assert torch.get_num_threads() == threads
