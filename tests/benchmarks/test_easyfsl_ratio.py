"""The comparison with easyfsl; nothing here is timed."""

import re

import pytest

from benchmarks import easyfsl_ratio
from benchmarks.sizes import Sizes


def test_each_method_is_measured_against_easyfsl(capsys: pytest.CaptureFixture[str]):
    """Catches a comparison that does not run, and methods that answer other questions.

    Exact agreement is tested method by method in tests/learners.
    """
    sizes = Sizes(eval_tasks=4, query=6, embedding_size=16)
    easyfsl_ratio.main(["--rounds", "1", "--budget", "0"], sizes)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(easyfsl_ratio.peers(16))
    for line in lines:
        found = re.fullmatch(
            r".*: alike ([\d.]+) %, ours .* tasks/s, easyfsl .*, ratio [\d.]+ \([\d.]+ to [\d.]+\)", line
        )
        assert found is not None
        if "Matching" not in line:  # with other weights
            assert float(found[1]) > 60
