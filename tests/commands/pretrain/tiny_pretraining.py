"""Tiny pre-training runs of the command line."""

from pathlib import Path

from tests import tiny_run
from tests.commands.pretrain.pictures import SIZE

CONV4 = ["--model.backbone=conv-4", "--model.options={hidden_size: 4}"]
SMALL = [
    "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--trainer.logger=false",
    "--model.val_tasks=50", f"--data.image_size={SIZE}", f"--data.resize={SIZE}", "--data.channels=1",
    "--data.batch_size=8", "--data.num_workers=0",
    "--data.augment=[{class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 16, padding: 2}}]",
]  # fmt: skip


def main(words: list[str]) -> int:
    return tiny_run.main(["pretrain", *words])


def arguments(images: Path, root: Path, *args: str, network: list[str] = CONV4) -> list[str]:
    return ["fit", f"--data.root={images}", f"--run.root={root}", "--run.name=tiny", *network, *SMALL, *args]


def run(images: Path, root: Path, *args: str, network: list[str] = CONV4) -> int:
    return main(arguments(images, root, *args, network=network))
