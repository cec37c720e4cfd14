"""What `python -m leo_lightning pretrain` refuses, for test_refusals.py and docs/errors.md."""

from collections.abc import Callable

from tests.commands.pretrain.pictures import SIZE, tree
from tests.refusals import Case, World, text

SMALL = (
    "--trainer.accelerator=cpu --trainer.max_epochs=1 --run.root=runs --model.backbone=conv-4 "
    f"--data.image_size={SIZE} --data.resize={SIZE} --data.channels=1 --data.batch_size=8 "
    "--data.num_workers=0"
)
FIT = f"pretrain fit {SMALL}"
SKIP = "remove them, or leave them out: --data.on_error skip"


def good(world: World) -> None:
    """A train and a val split."""
    tree(world.folder / "images", train=2, val=2, images=6)


def but(change: Callable[[World], object]) -> Callable[[World], object]:
    """The same, changed."""

    def arrange(world: World) -> None:
        good(world)
        change(world)

    return arrange


def flags(given: str, line: str) -> Case:
    """Flags that are refused, with good images."""
    return Case(f"{FIT} --data.root=images {given}", line, good)


def images(line: str, change: Callable[[World], object], given: str = "") -> Case:
    """Images that are refused."""
    return Case(f"{FIT} --data.root=images {given}", line, but(change))


def without(split: str) -> Callable[[World], object]:
    return lambda world: (world.folder / "images" / split).rename(world.folder / "elsewhere")


def augment(transform: str) -> str:
    return f"'--data.augment=[{{class_path: torchvision.transforms.v2.{transform}}}]'"


PRETRAINING = {
    "no such command": Case("pretrain train", "unknown command train"),
    "no command": Case("pretrain --data.root=images", "name a command, fit or validate, before the flags"),
    "no images": Case(FIT, "data.root"),
    "no such folder": Case(f"{FIT} --data.root=images", "no such folder of images"),
    "no split to learn from": images(
        "images: has no split 'train'; pre-training learns from train, judged by val", without("train")
    ),
    "no split to judge by": images(
        "images: has no split 'val'; pre-training learns from train, judged by val", without("val")
    ),
    "a file that is no image": images(
        f"images/train: not images: 'train0/a.txt'; {SKIP}", text("images/train/train0/a.txt", "a")
    ),
    "a damaged image": images(
        f"images/val: not whole images: 'val1/03.png'; {SKIP}",
        text("images/val/val1/03.png", "a"),
    ),
    "no such network": flags(
        "--model.backbone=conv-44",
        "there is no backbone 'conv-44'; take …, or another model of timm",
    ),
    "an option that it lacks": flags(
        "'--model.options={depth: 3}'", "backbone conv-4 cannot be built with depth = 3: …"
    ),
    "images that are too small": flags(
        "--data.image_size=8",
        "backbone conv-4 takes no images of 8 × 8 pixels (…); choose another image size",
    ),
    "blocks that are too large": flags(
        "--model.backbone=resnet-12 --data.image_size=32 --data.resize=32",
        "resnet-12 drops blocks of 5 × 5 places, and images of 32 × 32 pixels leave it 4 × 4; set the option "
        "dropblock_size to 2, or take larger images",
    ),
    "a resize below the crop": flags("--data.resize=8", f"data.resize is 8: it must be at least {SIZE}"),
    "neither grey nor colour": flags(
        "--data.channels=2", "data.channels is 2: it must be 1 (grey) or 3 (colour)"
    ),
    "a mean too many": flags(
        "--data.mean=[1,2]", "data.mean has 2 numbers for 1 channels; give one for each"
    ),
    "a deviation of 0": flags("--data.std=[0]", "data.std is [0.0]: each must be above 0"),
    "a number too small": flags("--data.batch_size=0", "data.batch_size is 0: it must be at least 1"),
    "a rate of 0": flags("--model.learning_rate=0", "model.learning_rate is 0.0: it must be above 0"),
    "all mass smoothed away": flags(
        "--model.label_smoothing=1", "model.label_smoothing is 1.0: it must be at least 0 and below 1"
    ),
    "a batch larger than the split": flags(
        "--data.batch_size=100",
        "images/train: 12 images are fewer than a batch of 100; lower --data.batch_size",
    ),
    "one class to judge by": images(
        "images/val: validation needs two classes at least",
        lambda world: (world.folder / "images/val/val0").rename(world.folder / "elsewhere"),
    ),
    "too few images for a shot": flags(
        "--model.val_shot=6",
        "images/val: class 'val0' has 6 images, a validation task needs 7; lower --model.val_shot or remove "
        "the class",
    ),
    "a schedule without an end": flags(
        "--trainer.max_epochs=-1", "model.schedule cosine needs an end: set --trainer.max_epochs"
    ),
    "augmentation of another size": flags(
        augment("RandomCrop, init_args: {size: 8}"),
        f"data.augment makes (1, 8, 8) of an image where (1, {SIZE}, {SIZE}) is needed; end it with a crop "
        f"to {SIZE} pixels",
    ),
    "augmentation that config.yaml cannot hold": flags(
        augment("RandomRotation, init_args: {degrees: 3}"),
        "degrees 3: config.yaml could not replay it; write a list of two numbers",
    ),
    "another checkpoint": Case(
        f"{FIT} --data.root=images --ckpt_path=a.ckpt",
        "is no whole file of torch",
        but(text("a.ckpt", "a")),
    ),
}
