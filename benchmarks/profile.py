"""`python -m benchmarks.profile SHOT`: the time of a training step by kind of operation, in ms."""

import sys
from collections import Counter

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.sizes import Sizes
from benchmarks.steps import learner
from leo_lightning.data.episode import Episode
from leo_lightning.training.meta_learner import MetaLearner

GROUPS = {
    "matrix products": {"mm", "addmm", "addmm_"},
    "small batched products": {"bmm", "baddbmm", "baddbmm_"},
    "random numbers": {"normal_", "random_"},
    "elementwise": {
        *(
            "mul",
            "mul_",
            "add",
            "add_",
            "sub",
            "sub_",
            "div",
            "div_",
            "neg",
            "pow",
            "where",
            "gt",
            "ge",
            "le",
        ),
        *("expm1", "expm1_", "exp", "log", "addcmul", "threshold", "threshold_", "threshold_backward"),
        *("clamp_min", "clamp_min_", "relu_", "sum", "mean", "copy_", "fill_", "cat", "_softmax"),
        *("bitwise_and", "bitwise_and_", "bitwise_right_shift", "bitwise_right_shift_", "bitwise_not_"),
    },
}
STEPS = 30


def main(shot: int) -> None:
    """Print ms per step and group; everything else is calls, autograd, Adam and NumPy."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = Sizes()
    system = MetaLearner(learner(sizes))
    optimizer, tasks = system.configure_optimizers(), torch.arange(sizes.tasks)
    support = torch.randn(sizes.tasks, sizes.way, shot, sizes.embedding_size)
    query = torch.randn(sizes.tasks, sizes.way, sizes.query, sizes.embedding_size)
    episode = Episode(F.normalize(support, dim=-1), F.normalize(query, dim=-1))

    def step() -> None:
        optimizer.zero_grad()
        system.learner(episode, system.noise_seeds(0, 0, tasks)).loss.backward()
        system.configure_gradient_clipping(optimizer)
        optimizer.step()

    for _ in range(5):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled, torch.profiler.record_function("the step"):
        for _ in range(STEPS):
            step()
    times: Counter[str] = Counter()
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::")
        group = next((group for group, names in GROUPS.items() if name in names), "everything else")
        times[group] += event.self_cpu_time_total
    for group, time in times.most_common():
        print(f"{group:24}{time / 1000 / STEPS:7.2f}")
    print(f"{'together':24}{sum(times.values()) / 1000 / STEPS:7.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
