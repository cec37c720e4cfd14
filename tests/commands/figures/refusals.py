"""Bad input to `python -m leo_lightning figures`, for test_refusals.py."""

from collections.abc import Callable
from typing import Any

import torch

from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.commands.figures.checkpoints import save_checkpoint
from tests.refusals import Case, World, checkpoint, config_of_run, data, finished, saved, text

DONE = "--ckpt_path done/checkpoints/best.ckpt --out out"
OTHER = "--ckpt_path done/checkpoints/other.ckpt --out out"
FUNCTIONS = "leo_lightning.data.function_data.FunctionDataModule"


def another(make: Callable[[], Any]) -> Callable[[World], object]:
    """Another learner's checkpoint in the run folder."""

    def arrange(world: World) -> None:
        folder = finished(world)
        with torch.random.fork_rng():
            save_checkpoint(folder / "checkpoints" / "other.ckpt", make())

    return arrange


def prototypical() -> PrototypicalNetworks:
    return PrototypicalNetworks(128)


FIGURES = {
    "no figure named": Case("figures", "the following arguments are required"),
    "no such figure": Case("figures latent", "argument NAME"),
    "no checkpoint named": Case("figures latents --out out", "the following arguments are required"),
    "flag without a value": Case("figures latents --out", "argument --out"),
    "no such flag": Case(f"figures latents {DONE} --seed 3", "--seed 3"),
    "a word for a number": Case(f"figures latents {DONE} --tasks many", "argument --tasks"),
    "no tasks": Case(f"figures latents {DONE} --tasks 0", "--tasks", finished),
    "task below 0": Case(f"figures episode {DONE} --task -1", "--task", finished),
    "no samples": Case(f"figures regression {DONE} --samples 0", "--samples", finished),
    "no such checkpoint": Case("figures latents --ckpt_path x.ckpt --out out", "no such checkpoint"),
    "checkpoint of text": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "is not a whole torch file",
        text("x.ckpt", "weights"),
    ),
    "checkpoint of another program": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "not a checkpoint of this application",
        saved({"weight": torch.ones(2)}),
    ),
    "checkpoint that tells too little": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "records no configuration",
        checkpoint(config=None, datamodule_hyper_parameters=None),
    ),
    "broken configuration": Case(f"figures latents {DONE}", "/done/config.yaml", config_of_run("data: [")),
    "mistyped field of the data": Case(
        f"figures latents {DONE}",
        "/done/config.yaml",
        config_of_run("data: {wayz: 5}"),
    ),
    "no features": Case(
        f"figures latents {DONE} --data.root nowhere",
        "no such folder of features",
        finished,
    ),
    "features of another backbone": Case(
        f"figures latents {DONE} --data.root data",
        "was trained on embeddings of size 128, the data has size 4",
        lambda world: [finished(world), data(world)],
    ),
    "learner without codes": Case(
        f"figures adaptation {OTHER}",
        "holds a PrototypicalNetworks",
        another(prototypical),
    ),
    "learner of functions": Case(
        f"figures episode {OTHER}",
        "holds a GeneralLEO",
        lambda world: [
            another(lambda: GeneralLEO(2, base=MLPRegressor()))(world),
            (world.folder / "done" / "config.yaml").write_text(f"data: {{class_path: {FUNCTIONS}}}"),
        ],
    ),
    "classes in place of functions": Case(
        f"figures regression {DONE}",
        "holds a LEO",
        finished,
    ),
    "too few functions": Case(
        f"figures regression {OTHER} --tasks 2",
        "--tasks",
        lambda world: [
            another(lambda: GeneralLEO(2, base=MLPRegressor(1, (3,))))(world),
            (world.folder / "done" / "config.yaml").write_text(f"data: {{class_path: {FUNCTIONS}}}"),
        ],
    ),
    "codes that stay": Case(
        f"figures latents {OTHER}",
        "takes no latent steps",
        another(lambda: LEO(128, 4, latent_steps=0)),
    ),
    "unknown class": Case(
        f"figures latents {DONE} --class dog",
        "--class",
        finished,
    ),
    "mistyped class": Case(
        f"figures latents {DONE} --class vla03",
        "--class",
        finished,
    ),
    "class in none of the tasks": Case(
        f"figures latents {DONE} --tasks 1 --class val00",
        "--class",
        finished,
    ),
    "other without a label": Case(
        f"figures curvature {DONE} --other done",
        "argument --other",
    ),
    "label twice": Case(
        f"figures curvature {DONE} --other LEO=done/checkpoints/best.ckpt",
        "--other",
        finished,
    ),
    "other without inner steps": Case(
        f"figures curvature {DONE} --other a=done/checkpoints/other.ckpt",
        "holds a PrototypicalNetworks, which has no inner steps",
        another(prototypical),
    ),
    "out is a file": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "out: is not a folder",
        text("out", ""),
    ),
    "out below a file": Case(
        "figures latents --ckpt_path x.ckpt --out file/out",
        "out: is not a folder",
        text("file", ""),
    ),
}
