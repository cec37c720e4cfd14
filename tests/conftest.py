"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# derandomize: the same examples in every run. The time that an example takes depends on the machine only.
settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("deterministic")
