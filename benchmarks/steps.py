"""Rows without Lightning: a training step of either LEO, and the sampling of episodes."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import naive
from benchmarks.rounds import Repeated, Row
from benchmarks.sizes import Sizes
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.data.sampler import sample_rows
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.noise import Noise
from leo_lightning.training.meta_learner import MetaLearner


def learner(sizes: Sizes) -> LEO:
    """The LEO that all rows train or evaluate."""
    return LEO(
        embedding_size=sizes.embedding_size,
        num_latents=sizes.num_latents,
        latent_steps=sizes.latent_steps,
        finetuning_steps=sizes.finetuning_steps,
        dropout=sizes.dropout,
    )


def naive_row(name: str, shot: int, data: EpisodeDataModule, sizes: Sizes, budget: float) -> Row:
    """Noise, loss, backward, clipping and Adam of the reference LEO."""
    model = naive.reference_of(learner(sizes))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    episode = _episode(data, shot, sizes)
    step = partial(naive.train_step, model, optimizer, episode.support, episode.query)
    return Row(name, f"{shot}-shot training step, naive", Repeated(step, budget), sizes.tasks)


def learner_row(name: str, shot: int, data: EpisodeDataModule, sizes: Sizes, budget: float) -> Row:
    """The same of ours, whose noise a thread draws. Clipping is the system's, which has no trainer here."""
    system = MetaLearner(learner(sizes))
    optimizer = system.configure_optimizers()
    episode = _episode(data, shot, sizes)
    noise = _noise(system, episode)

    def step() -> None:
        optimizer.zero_grad()
        system.learner(episode, noise=noise).loss.backward()
        system.configure_gradient_clipping(optimizer)
        optimizer.step()

    return Row(name, f"{shot}-shot training step, learner", Repeated(step, budget), sizes.tasks)


def noise_row(name: str, shot: int, data: EpisodeDataModule, sizes: Sizes, budget: float) -> Row:
    """Work of the thread that draws the noise of a step."""
    draw = partial(_noise, MetaLearner(learner(sizes)), _episode(data, shot, sizes))
    return Row(name, f"its noise, {shot}-shot", Repeated(draw, budget), sizes.tasks)


def growth_rows(data: EpisodeDataModule, sizes: Sizes, budget: float) -> list[Row]:
    """Our 1-shot step with twice the tasks, queries, latent or fine-tuning steps, and with more shots."""
    doubled = {
        "2 × B": sizes._replace(tasks=2 * sizes.tasks),
        "2 × Q": sizes._replace(query=2 * sizes.query),
        "2 × T": sizes._replace(latent_steps=2 * sizes.latent_steps),
        "2 × F": sizes._replace(finetuning_steps=2 * sizes.finetuning_steps),
    }
    rows = []
    for what, larger in doubled.items():
        row = learner_row(f"growth_{what[-1]}", 1, data, larger, budget)
        rows.append(row._replace(label=f"1-shot training step, learner, {what}"))
    return rows


def sampling_row(name: str, data: EpisodeDataModule, sizes: Sizes, budget: float) -> Row:
    """Rows of a meta-batch, 1 + Q images per class."""
    label = f"sampling {sizes.tasks} tasks of {sizes.way} × {1 + sizes.query}"
    return Row(name, label, Repeated(partial(_sample, data, 1, sizes), budget), sizes.tasks)


def bank_row(name: str, label: str, data: EpisodeDataModule, sizes: Sizes, budget: float) -> Row:
    """Rows of a meta-batch and their embeddings, other tasks each time."""
    batches = itertools.count()

    def step() -> Episode:
        first = next(batches) * sizes.tasks
        return data.gather(_sample(data, 1, sizes, first), "train")

    return Row(name, f"sampling and gathering, {label}", Repeated(step, budget), sizes.tasks)


def features(root: Path, sizes: Sizes, **options: Any) -> EpisodeDataModule:
    """The training split at hand, outside a trainer."""
    data = EpisodeDataModule(str(root), way=sizes.way, query=sizes.query, **options)
    data.setup("fit")
    return data


def _sample(data: EpisodeDataModule, shot: int, sizes: Sizes, first: int = 0) -> EpisodeRows:
    bank = data.bank("train")
    return sample_rows(
        range(first, first + sizes.tasks), seed=0, split="train", offsets=bank.offsets, counts=bank.counts,
        way=sizes.way, shot=shot, queries=sizes.query,
    )  # fmt: skip


def _noise(system: MetaLearner, episode: Episode) -> Noise:
    assert episode.rows is not None
    return system.learner.draw_noise(episode, system.noise_seeds(0, 0, episode.rows.task))


def _episode(data: EpisodeDataModule, shot: int, sizes: Sizes) -> Episode:
    return data.gather(_sample(data, shot, sizes), "train")
