"""Settings of all tests."""

import os

# One thread, here and in the processes that tests start: where cores are shared, OpenMP's threads wait for
# each other far longer than these small tensors take.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

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
