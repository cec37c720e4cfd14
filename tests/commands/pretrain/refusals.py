"""Bad input of `python -m leo_lightning pretrain`, for test_refusals.py."""

from collections.abc import Callable

from leo_lightning.images.backbones.weights import save_backbone
from tests.commands.pretrain.pictures import SIZE, tree
from tests.images.backbones.networks import conv4
from tests.refusals import Case, World, text

SMALL = (
    "--trainer.accelerator=cpu --trainer.max_epochs=1 --run.root=runs --model.backbone=conv-4 "
    f"--data.image_size={SIZE} --data.resize={SIZE} --data.channels=1 --data.batch_size=8 "
    "--data.num_workers=0"
)
FIT = f"pretrain fit {SMALL}"


def good(world: World) -> None:
    """A train and a val split."""
    tree(world.folder / "images", train=2, val=2, images=6)


def but(change: Callable[[World], object]) -> Callable[[World], object]:
    """Good input with a change."""

    def arrange(world: World) -> None:
        good(world)
        change(world)

    return arrange


def flags(given: str, word: str) -> Case:
    """Flags that are refused, with good images."""
    return Case(f"{FIT} --data.root=images {given}", word, good)


def images(word: str, change: Callable[[World], object], given: str = "") -> Case:
    """Images that are refused."""
    return Case(f"{FIT} --data.root=images {given}", word, but(change))


def without(split: str) -> Callable[[World], object]:
    return lambda world: (world.folder / "images" / split).rename(world.folder / "elsewhere")


def augment(transform: str) -> str:
    return f"'--data.augment=[{{class_path: torchvision.transforms.v2.{transform}}}]'"


PRETRAINING = {
    "no such command": Case("pretrain train", "name a command, fit or validate"),
    "no command": Case("pretrain --data.root=images", "name a command, fit or validate, before the flags"),
    "no images": Case(FIT, "data.root"),
    "no such folder": Case(f"{FIT} --data.root=images", "no such folder of images"),
    "no split to learn": images("images: has no split 'train'", without("train")),
    "no split to validate on": images("images: has no split 'val'", without("val")),
    "a file that is not an image": images(
        "images/train: not images: 'train0/a.txt'; remove them, or leave them out: --data.on_error skip",
        text("images/train/train0/a.txt", "a"),
    ),
    "a damaged image": images(
        "images/val: damaged images: 'val1/03.png'; remove them", text("images/val/val1/03.png", "a")
    ),
    "no such network": flags(
        "--model.backbone=conv-44", "there is no backbone 'conv-44'; did you mean conv-4?"
    ),
    "an option that it lacks": flags("'--model.options={depth: 3}'", "backbone conv-4 cannot be built with"),
    "images that are too small": flags("--data.image_size=8", "does not take images of 8 × 8 pixels"),
    "blocks that are too large": flags(
        "--model.backbone=resnet-12 --data.image_size=32 --data.resize=32",
        "set the option dropblock_size to 2, or use larger images",
    ),
    "a resize below the crop": flags("--data.resize=8", f"data.resize is 8: it must be at least {SIZE}"),
    "neither gray nor color": flags("--data.channels=2", "data.channels is 2: it must be 1 (gray) or 3"),
    "a mean too many": flags("--data.mean=[1,2]", "data.mean has 2 numbers for 1 channels"),
    "a deviation of 0": flags("--data.std=[0]", "data.std is [0.0]"),
    "a number too small": flags("--data.batch_size=0", "data.batch_size is 0: it must be at least 1"),
    "a rate of 0": flags(
        "--model.learning_rate=0", "model.learning_rate is 0.0: it must be a number above 0"
    ),
    "all mass smoothed away": flags("--model.label_smoothing=1", "model.label_smoothing is 1.0"),
    "a batch larger than the split": flags(
        "--data.batch_size=100", "12 images are fewer than a batch of 100; lower --data.batch_size"
    ),
    "one class to validate on": images(
        "images/val: validation needs at least two classes",
        lambda world: (world.folder / "images/val/val0").rename(world.folder / "elsewhere"),
    ),
    "too few images for a shot": flags(
        "--model.val_shot=6",
        "class 'val0' has too few images for a validation task, 6 of 7; lower --model.val_shot",
    ),
    "a class of one image": images(
        "class 'val0' has too few images for a validation task, 1 of 2; remove the class",
        lambda world: [path.unlink() for path in sorted((world.folder / "images/val/val0").iterdir())[1:]],
    ),
    "a schedule without an end": flags("--trainer.max_epochs=-1", "model.schedule cosine needs an end"),
    "augmentation of another size": flags(
        augment("RandomCrop, init_args: {size: 8}"),
        f"data.augment turns an image into (1, 8, 8), but (1, {SIZE}, {SIZE}) is needed",
    ),
    "augmentation that config.yaml cannot hold": flags(
        augment("RandomRotation, init_args: {degrees: 3}"), "cannot be written to config.yaml"
    ),
    "weights without a network": flags(
        "--model.backbone=null --model.weights=pretrained", "pretrained: does not say which network"
    ),
    "weights of another network": Case(
        f"{FIT} --data.root=images --model.backbone=resnet18 --model.weights=a.safetensors",
        "a.safetensors: holds weights of conv-4, not of resnet18; leave out --model.backbone",
        but(lambda world: save_backbone(conv4(), world.folder / "a.safetensors")),
    ),
    "a size that does not fit that of the weights": Case(
        f"{FIT} --data.root=images --model.weights=a.safetensors --data.resize=8",
        f"data.resize is 8: it must be at least {SIZE}",
        but(lambda world: save_backbone(conv4(), world.folder / "a.safetensors")),
    ),
    "no such weights": flags("--model.weights=a.pt", "a.pt: No such file"),
    "random weights that stay": flags("--model.freeze_epochs=1", "name them with --model.weights"),
    "statistics of random weights": flags("--model.keep_statistics=true", "name them with --model.weights"),
    "a backbone without a rate": flags("--model.backbone_rate=0", "model.backbone_rate is 0.0: it must be"),
    "another checkpoint": Case(
        f"{FIT} --data.root=images --ckpt_path=a.ckpt", "a.ckpt: is n", but(text("a.ckpt", "a"))
    ),
}
