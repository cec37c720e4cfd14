"""Settings of all tests."""

import os
from collections.abc import Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# One thread, here and in the processes that tests start: where cores are shared, OpenMP's threads wait for
# each other far longer than these small tensors take.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Before the package: while jaxtyping imports a module of it, all that this imports is compiled anew, though
# its bytecode is there.
for name in (
    *("pytorch_lightning", "matplotlib.pyplot", "pandas", "scipy.signal", "scipy.stats", "sklearn.manifold"),
    *("optuna", "sqlalchemy", "torchvision"),
):
    import_module(name)

# derandomize: the same examples in every run. The time that an example takes depends on the machine only.
settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("deterministic")
# pytest tests/test_fuzz.py --hypothesis-profile=full: other examples in every run, and 2,000 of each kind.
settings.register_profile(
    "full",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps embeddings of images out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The number of threads in a process in which nobody has set it: the cores, as torch takes them."""
    before, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(cores)
    yield cores
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Skip a test that asks for learn2learn where it is not installed."""
    try:
        yield
    except ValueError as error:
        if find_spec("learn2learn") is None and "needs the package learn2learn" in str(error):
            pytest.skip("learn2learn is not installed")
        raise


pytest_runtest_setup = pytest_runtest_call


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a tiny run that was trained and tested. Many tests read it, so none may change it."""
    from tests.tiny_run import folders, tiny  # late: the package is not yet watched while this file is read

    root = tmp_path_factory.mktemp("finished")
    assert tiny(root) == 0
    (folder,) = folders(root)

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = state()
    yield folder
    assert state() == before, "a test has changed the finished run, which all tests share"
