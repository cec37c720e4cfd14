"""Set-up of the process that a command runs in: threads, memory, signals, imports, compiler."""

import ctypes
import os
import shutil
import signal
from pathlib import Path
from unittest import mock

from lightning_utilities.core import imports

from leo_lightning.common.errors import InputError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
UNUSED = ("matplotlib", "scipy", "torchvision")


def prepare_process(one_thread: bool) -> None:
    """Set up a process: its threads, unless OMP_NUM_THREADS says otherwise, and memory that stays.

    Args:
        one_thread: for small tensors, a second thread saves a fifth on an idle machine and ruins a busy one.
    """
    if one_thread:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_freed_memory()


def prepare_lightning() -> None:
    """Set up a process for Lightning: quick imports, and Ctrl-C that ends the process until a run listens."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    import_torchmetrics()


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory, up to 1 GiB, for the tensors of the next step.

    A 5-shot training step takes a fifth longer if its pages have to be faulted in anew. Other C libraries
    are left alone.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)):
        mallopt(option, size)


def import_torchmetrics() -> None:
    """Import torchmetrics as if the packages of `UNUSED` were missing, which takes half the time.

    It imports them for plots and for metrics of images and sounds. Other code can still import them.
    """
    check, available = imports.RequirementCache._check_available, imports.package_available

    def check_used(cache: imports.RequirementCache) -> None:
        if cache.requirement in UNUSED:
            cache.available, cache.message = False, f"{cache.requirement} is not used here"
        check(cache)

    def used_available(name: str) -> bool:
        return name not in UNUSED and available(name)

    with (
        mock.patch.object(imports.RequirementCache, "_check_available", check_used),
        mock.patch.object(imports, "package_available", used_available),
    ):
        import torchmetrics  # noqa: F401


def prepare_compiler(root: Path) -> None:
    """Keep compiled code in `root`, where later runs find it.

    Raises:
        InputError: a C++ compiler is missing.
    """
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name):
        raise InputError("model.compile needs a C++ compiler: install g++ or clang++, or leave it out")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((root / ".compiled").absolute()))
