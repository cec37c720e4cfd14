"""One thread for small tensors, unless somebody chose another number."""

import pytest
import torch

from leo_lightning.common.threads import one_thread


def test_one_thread_until_the_end(threads: int):
    """Catches threads that stay switched off for the rest of somebody's program, also after an error."""
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == threads


def test_a_choice_is_respected(threads: int, monkeypatch: pytest.MonkeyPatch):
    """Catches a number that somebody chose and that is overruled."""
    torch.set_num_threads(threads + 1)
    with one_thread():
        assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    with one_thread():
        assert torch.get_num_threads() == threads
