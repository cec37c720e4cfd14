"""MAML and Meta-SGD with the inner loop of learn2learn, task by task, in place of ours.

Arnold, Mahajan, Datta, Bunner, Zarkias: learn2learn: A Library for Meta-Learning Research.
arXiv:2008.12284, version 0.2.0. Parameters and results are the same as with `MAML` and `MetaSGD` here.
learn2learn is imported only when there is something to adapt: it takes seconds.
"""

from abc import abstractmethod
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from leo_lightning.learners.parts.fast_weights import Layer
from leo_lightning.learners.parts.unequal_shots import Shots, present_images


class _Learn2Learn(AdaptedMLP):
    """A method whose inner loop is learn2learn's."""

    compilable = False

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """Adapt a clone of the network to each task in turn.

        The inner loop needs autograd, also where the outer one is without.
        """
        B, N, K, _ = support.shape
        graph, valid = torch.is_grad_enabled(), present_images(support, shots)
        with torch.inference_mode(False), torch.enable_grad():
            # weights that are not drawn, so that torch's generator stays as it is
            head = cast(nn.Linear, nn.utils.skip_init(nn.Linear, self.hidden_size, N)).to(support)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            algorithms = learn2learn_module("algorithms", "this learner")
            learner = self.wrapped(algorithms, nn.Sequential(self.hidden, nn.ReLU(), head))
            labels = torch.arange(N, device=support.device).repeat_interleave(K)
            tasks = []
            for task, images in enumerate(support.clone().flatten(1, 2)):
                rows = slice(None) if valid is None else valid[task]
                clone = learner.clone()
                for _ in range(steps):
                    clone.adapt(F.cross_entropy(clone(images[rows]), labels[rows]))
                tasks.append(list(clone.module.parameters()))
            stacked = [torch.stack(parameters) for parameters in zip(*tasks, strict=True)]
        if not graph:
            stacked = [parameters.detach() for parameters in stacked]
        return [Layer(stacked[0], stacked[1]), Layer(stacked[2], stacked[3])]

    @abstractmethod
    def wrapped(self, algorithms: Any, network: nn.Sequential) -> Any:
        """The network in the hands of a class of `learn2learn.algorithms`."""


class Learn2LearnMAML(_Learn2Learn, MAML):
    """`MAML` by learn2learn.algorithms.MAML."""

    def wrapped(self, algorithms: Any, network: nn.Sequential) -> Any:
        """The network, and one step size."""
        return algorithms.MAML(network, lr=self.inner_lr, first_order=self.first_order)


class Learn2LearnMetaSGD(_Learn2Learn, MetaSGD):
    """`MetaSGD` by learn2learn.algorithms.MetaSGD."""

    def wrapped(self, algorithms: Any, network: nn.Sequential) -> Any:
        """The network, and a step size for each of its parameters."""
        rates = [torch.as_tensor(rate) for layer in self.rates() for rate in layer]
        pairs = zip(rates, network.parameters(), strict=True)
        return algorithms.MetaSGD(network, lrs=[rate.expand_as(parameter) for rate, parameter in pairs])
