"""The comparison with learn2learn; nothing here is timed."""

import re

import pytest

from benchmarks import learn2learn_ratio
from benchmarks.sizes import Sizes


def test_each_method_is_measured_against_learn2learn(capsys: pytest.CaptureFixture[str]):
    """Catches a comparison that does not run, or leaves one out."""
    learn2learn_ratio.main(["--rounds", "1", "--budget", "0"], Sizes(tasks=2, query=2, embedding_size=6))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["MAML", "first-order MAML", "Meta-SGD"]
    for line in lines:
        assert re.fullmatch(r".*: ours .* ms, learn2learn .* ms, ratio [\d.]+ \([\d.]+ to [\d.]+\)", line)
