"""The benchmark of logging; nothing here is timed."""

import re

import pytest
import wandb

from benchmarks import logging
from benchmarks.sizes import Sizes
from leo_lightning.runs.folder import RunOptions


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_both_ways_of_logging_are_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Catches a benchmark that does not run, or measures one of the two only."""
    wandb.teardown()  # it keeps the mode of the tests before
    monkeypatch.setattr(logging, "SEGMENT", 2)
    sizes = Sizes(tasks=2, query=2, embedding_size=6, num_latents=2, eval_tasks=4, images=5)
    logging.main(["--pairs", "2"], sizes)
    lines = capsys.readouterr().out.splitlines()
    for name in ("CSV, TensorBoard", "and W&B offline"):
        assert any(re.search(rf"{name} .* steps .*%.*%.*% .* MiB", line) for line in lines)


def test_costs_are_spread_over_the_steps_between(monkeypatch: pytest.MonkeyPatch):
    """Catches a share of another interval than that of the default settings."""
    cost = logging.Cost(step=0.01, line=0.5, pictures=50.0, memory=0)
    assert cost.shares == pytest.approx((0.01, 50 / (1000 * RunOptions().pictures_every)))
