"""What `python -m leo_lightning figures` refuses, for test_refusals.py and docs/errors.md."""

from collections.abc import Callable
from typing import Any

import torch

from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.commands.figures.checkpoints import save_checkpoint
from tests.refusals import Case, World, checkpoint, data, finished, saved, text

DONE = "--ckpt_path done/checkpoints/best.ckpt --out out"
OTHER = "--ckpt_path done/checkpoints/other.ckpt --out out"
MANUAL = "see python -m leo_lightning figures --help"
OF_LATENTS = "see python -m leo_lightning figures latents --help"
OTHER_OUT = "name another folder with --out"
ANOTHER = "name a best.ckpt or last.ckpt of a run"
FUNCTIONS = "leo_lightning.data.function_data.FunctionDataModule"
NAMES = ", ".join(f"val{number:02d}" for number in range(16))


def another(make: Callable[[], Any]) -> Callable[[World], object]:
    """Another learner's checkpoint in the run folder."""

    def arrange(world: World) -> None:
        folder = finished(world)
        with torch.random.fork_rng():
            save_checkpoint(folder / "checkpoints" / "other.ckpt", make())

    return arrange


def config(content: str) -> Callable[[World], object]:
    return lambda world: (finished(world) / "config.yaml").write_text(content)


def prototypical() -> PrototypicalNetworks:
    return PrototypicalNetworks(128)


FIGURES = {
    "no figure named": Case("figures", f"the following arguments are required: NAME; {MANUAL}"),
    "no such figure": Case(
        "figures latent", f"argument NAME: invalid choice: 'latent' (choose from …); {MANUAL}"
    ),
    "no checkpoint named": Case(
        "figures latents --out out", f"the following arguments are required: --ckpt_path; {OF_LATENTS}"
    ),
    "flag without a value": Case(
        "figures latents --out", f"argument --out: expected one argument; {OF_LATENTS}"
    ),
    "no such flag": Case(f"figures latents {DONE} --seed 3", f"unrecognized arguments: --seed 3; {MANUAL}"),
    "a word for a number": Case(
        f"figures latents {DONE} --tasks many", f"argument --tasks: invalid int value: 'many'; {OF_LATENTS}"
    ),
    "no tasks": Case(f"figures latents {DONE} --tasks 0", "--tasks is 0: it must be at least 1", finished),
    "task below 0": Case(
        f"figures episode {DONE} --task -1", "--task is -1: it must be at least 0", finished
    ),
    "task without a number": Case(
        f"figures episode {DONE} --task {2**63}", f"--task is {2**63}: it must be below 2^63", finished
    ),
    "no such checkpoint": Case(
        "figures latents --ckpt_path x.ckpt --out out", f"x.ckpt: no such checkpoint; {ANOTHER}"
    ),
    "checkpoint of text": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "x.ckpt: is no whole file of torch (…); copy or save it again",
        text("x.ckpt", "weights"),
    ),
    "checkpoint of another program": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        f"x.ckpt: no checkpoint of this application; {ANOTHER}",
        saved({"weight": torch.ones(2)}),
    ),
    "checkpoint in no run folder": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        "x.ckpt: lies in no run folder, whose config.yaml names the data; copy it, too",
        checkpoint(),
    ),
    "broken configuration": Case(
        f"figures latents {DONE}", "…/done/config.yaml: not valid YAML (…); mend it", config("data: [")
    ),
    "data that are no table": Case(
        f"figures latents {DONE}", "…/done/config.yaml: data: expected fields, got 3", config("data: 3")
    ),
    "mistyped field of the data": Case(
        f"figures latents {DONE}",
        "…/done/config.yaml: unknown field data.wayz; did you mean data.way?",
        config("data: {wayz: 5}"),
    ),
    "no features": Case(
        f"figures latents {DONE} --data.root nowhere",
        "nowhere: no such folder of features; make it with "
        "`python -m leo_lightning features import SRC nowhere`",
        finished,
    ),
    "features of another backbone": Case(
        f"figures latents {DONE} --data.root data",
        "done/checkpoints/best.ckpt: was trained on embeddings of size 128, the data has size 4; use "
        "features of the same kind (--data.root)",
        lambda world: [finished(world), data(world)],
    ),
    "learner without codes": Case(
        f"figures adaptation {OTHER}",
        "done/checkpoints/other.ckpt: holds a PrototypicalNetworks; the figure is about LEO for "
        "classification, so name a checkpoint of that",
        another(prototypical),
    ),
    "learner of functions": Case(
        f"figures episode {OTHER}",
        "done/checkpoints/other.ckpt: holds a GeneralLEO; the figure is about LEO for classification, so "
        "name a checkpoint of that",
        lambda world: [
            another(lambda: GeneralLEO(2, MLPRegressor()))(world),
            (world.folder / "done" / "config.yaml").write_text(f"data: {{class_path: {FUNCTIONS}}}"),
        ],
    ),
    "classes in place of functions": Case(
        f"figures regression {DONE}",
        "done/checkpoints/best.ckpt: holds a LEO; the figure is about LEO for functions, so name a "
        "checkpoint of configs/regression.yaml",
        finished,
    ),
    "too few functions": Case(
        f"figures regression {OTHER} --tasks 2",
        "--tasks is 2: no ambiguous sine is among them; raise it",
        lambda world: [
            another(lambda: GeneralLEO(2, MLPRegressor(1, (3,))))(world),
            (world.folder / "done" / "config.yaml").write_text(f"data: {{class_path: {FUNCTIONS}}}"),
        ],
    ),
    "codes that stay": Case(
        f"figures latents {OTHER}",
        "done/checkpoints/other.ckpt: takes no latent steps, so that codes stay what they are",
        another(lambda: LEO(128, 4, latent_steps=0)),
    ),
    "unknown class": Case(
        f"figures latents {DONE} --class dog",
        f"--class: no class is called 'dog'; there are {NAMES}",
        finished,
    ),
    "mistyped class": Case(
        f"figures latents {DONE} --class vla03",
        "--class: no class is called 'vla03'; did you mean val03?",
        finished,
    ),
    "class in none of the tasks": Case(
        f"figures latents {DONE} --tasks 1 --class val00",
        "--class: val00 is in none of the tasks; raise --tasks",
        finished,
    ),
    "other without a label": Case(
        f"figures curvature {DONE} --other done",
        "argument --other: expected LABEL=FILE, got 'done'; see python -m leo_lightning figures curvature "
        "--help",
    ),
    "label twice": Case(
        f"figures curvature {DONE} --other LEO=done/checkpoints/best.ckpt",
        "--other: two methods are called 'LEO'; give one another label",
        finished,
    ),
    "other without inner steps": Case(
        f"figures curvature {DONE} --other a=done/checkpoints/other.ckpt",
        "done/checkpoints/other.ckpt: holds a PrototypicalNetworks, which has no inner steps; leave --other "
        "a out",
        another(prototypical),
    ),
    "out is a file": Case(
        "figures latents --ckpt_path x.ckpt --out out",
        f"out: cannot be written (Not a directory); {OTHER_OUT}",
        text("out", ""),
    ),
    "out below a file": Case(
        "figures latents --ckpt_path x.ckpt --out file/out",
        f"file/out: cannot be written (Not a directory); {OTHER_OUT}",
        text("file", ""),
    ),
}
