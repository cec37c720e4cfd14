"""MAML and Meta-SGD with the inner loop of learn2learn, task by task, in place of ours.

Arnold, Mahajan, Datta, Bunner, Zarkias: learn2learn: A Library for Meta-Learning Research.
arXiv:2008.12284, version 0.2.0: `learn2learn.algorithms.MAML` and `MetaSGD`. Parameters and results are
those of `MAML` and `MetaSGD` here; only the way to them differs. learn2learn is imported only when there is
something to adapt: it takes seconds.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.parts.fast_weights import Layer
from leo_lightning.learners.parts.unequal_shots import present


class Learn2LearnMAML(MAML):
    """`MAML` by learn2learn.algorithms.MAML."""

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""

        def wrap(network: nn.Module) -> Any:
            return _algorithms().MAML(network, lr=self.inner_lr, first_order=self.first_order)

        return _adapted(wrap, self.hidden, support, shots, self.current_steps)

    def check_compilable(self) -> None:
        """Refuse: learn2learn's loop is no graph."""
        _refuse_to_compile(MAML)


class Learn2LearnMetaSGD(MetaSGD):
    """`MetaSGD` by learn2learn.algorithms.MetaSGD."""

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`."""
        N = support.shape[1]

        def wrap(network: nn.Module) -> Any:
            head = [self.head_weight_rate.expand(N, -1), self.head_bias_rate.expand(N)]
            rates = [self.hidden_weight_rate, self.hidden_bias_rate, *head]
            return _algorithms().MetaSGD(network, lrs=rates, first_order=self.first_order)

        return _adapted(wrap, self.hidden, support, shots, self.current_steps)

    def check_compilable(self) -> None:
        """Refuse: learn2learn's loop is no graph."""
        _refuse_to_compile(MetaSGD)


def _adapted(
    wrap: Callable[[nn.Module], Any],
    hidden: nn.Linear,
    support: Float[Tensor, "B N K E"],
    shots: Int64[Tensor, "B N"] | None,
    steps: int,
) -> list[Layer]:
    """Adapt a clone of the network to each task in turn.

    The inner loop needs autograd in every mode that it may be called in.
    """
    B, N, K, _ = support.shape
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        # weights that are not drawn: torch's generator is not ours to move
        head = cast(nn.Linear, nn.utils.skip_init(nn.Linear, hidden.out_features, N))
        head = head.to(support)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        learner = wrap(nn.Sequential(hidden, nn.ReLU(), head))
        labels = torch.arange(N, device=support.device).repeat_interleave(K)
        tasks = []
        for task, images in enumerate(support.clone().flatten(1, 2)):
            targets = labels
            if shots is not None:
                there = present(support, shots)[task].flatten()
                images, targets = images[there], labels[there]
            clone = learner.clone()
            for _ in range(steps):
                clone.adapt(F.cross_entropy(clone(images), targets))
            tasks.append(list(clone.module.parameters()))
        stacked = [torch.stack(each) for each in zip(*tasks, strict=True)]
    if not graph:
        stacked = [each.detach() for each in stacked]
    return [Layer(stacked[0], stacked[1]), Layer(stacked[2], stacked[3])]


def _algorithms() -> ModuleType:
    return learn2learn_module("algorithms", "this learner")


def _refuse_to_compile(ours: type[Learner]) -> None:
    raise InputError(
        f"model.compile: learn2learn's loop cannot be compiled; use {ours.__module__}.{ours.__name__}"
    )
