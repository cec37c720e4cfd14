"""Bad input for `classify` and `export`, for test_refusals.py."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import save_bank
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.matching import MatchingNetworks
from tests.commands.figures.checkpoints import save_checkpoint
from tests.images.pictures import save
from tests.refusals import (
    Case,
    Hostile,
    World,
    checkpoint,
    data,
    finished,
    folder,
    not_finite,
    saved,
    text,
)

E = 128
FILES = "--support s.npz --query q.npz"
DONE = "classify --out p.csv --ckpt_path done/checkpoints/best.ckpt"
NEW = f"{DONE} {FILES}"
ALONE = f"classify --out p.csv --ckpt_path x.ckpt {FILES}"
EXPORT = "export --ckpt_path x.ckpt --support s.npz"
MANUAL = "see python -m leo_lightning export --help"
NAME_A_FILE = "name a file of features, or a folder of images"
OUT = "name another place with --out"
BACKBONE = "use one backbone for both"
DAMAGED = "x.ckpt: the checkpoint's record of its features is damaged; use another checkpoint"


def files(
    arrange: Callable[[World], object] = lambda world: None, **arrays: Any
) -> Callable[[World], object]:
    """`s.npz` of two classes and `q.npz` without labels, but for some arrays of the first; a finished run."""

    def write(world: World) -> None:
        finished(world)
        good = {"embeddings": np.ones((4, E), np.float32), "labels": np.array(["a", "a", "b", "b"])}
        content = {name: array for name, array in (good | arrays).items() if array is not None}
        np.savez(world.folder / "s.npz", **content)
        np.savez(world.folder / "q.npz", embeddings=np.ones((3, E), np.float32))
        arrange(world)

    return write


def query(**arrays: Any) -> Callable[[World], object]:
    return files(lambda world: np.savez(world.folder / "q.npz", **arrays))


def of(learner: Callable[[], Any]) -> Callable[[World], object]:
    """`x.ckpt` of another learner."""

    def arrange(world: World) -> None:
        with torch.random.fork_rng():
            save_checkpoint(world.folder / "x.ckpt", learner())
        content = torch.load(world.folder / "x.ckpt", weights_only=True)
        torch.save(content | {"EpisodeDataModule": record()}, world.folder / "x.ckpt")

    return arrange


def record(**changes: Any) -> dict[str, Any]:
    return {"normalize": "l2", "mean": None, "provenance": {}} | changes


def recorded(**provenance: str) -> Callable[[World], object]:
    """`x.ckpt` that records weights and recipe of its features, and `s.safetensors` made otherwise."""

    def arrange(world: World) -> None:
        made = {"weights_sha256": "one", "recipe": "one"}
        checkpoint(EpisodeDataModule=record(provenance=made))(world)
        bank = FeatureBank.from_arrays(
            torch.ones(4, E), np.array(["a", "a", "b", "b"]), None, made | provenance, "s.safetensors"
        )
        save_bank(bank, world.folder / "s.safetensors")

    return arrange


def general() -> GeneralLEO:
    return GeneralLEO(2, base=MLPRegressor())


NEW_CLASSES = {
    "no such support": Case(f"{DONE} --support no.npz --query q.npz", "no such file", files()),
    "no such query": Case(
        f"{DONE} --support s.npz --query no.safetensors",
        "no such file",
        files(),
    ),
    "support that is a folder": Case(
        f"{DONE} --support done --query q.npz",
        "holds no images",
        files(),
    ),
    "support of another kind": Case(
        f"{DONE} --support s.xls --query q.npz",
        "is of no known kind",
        files(text("s.xls", "a,b")),
    ),
    "support without labels": Case(NEW, "has no 'labels'", files(labels=None)),
    "npy without labels": Case(
        f"{DONE} --support s.npy --query q.npz",
        "its labels must be in s_labels.npy, .txt or .csv beside it, and there is none",
        files(lambda world: np.save(world.folder / "s.npy", np.ones((4, E), np.float32))),
    ),
    "labels of another length": Case(NEW, "4 embeddings but 3 labels", files(labels=np.arange(3))),
    "one class": Case(NEW, "holds one class only", files(labels=np.array(["a"] * 4))),
    "NaN in the support": Case(
        NEW,
        "numbers that are not finite in 4 of 4 rows",
        files(embeddings=np.full((4, E), np.nan)),
    ),
    "NaN in the query": Case(
        NEW,
        "numbers that are not finite in 1 of 3 rows",
        query(embeddings=np.stack([np.ones(E), np.full(E, np.inf), np.ones(E)])),
    ),
    "support of another backbone": Case(
        NEW,
        "embeddings have size 4, and 128 in",
        files(
            lambda world: np.savez(world.folder / "q.npz", x=np.ones((2, 4), np.float32)),
            embeddings=np.ones((4, 4), np.float32),
        ),
    ),
    "query of another backbone": Case(
        NEW,
        "embeddings have size 6, and 128 in",
        query(x=np.ones((2, 6))),
    ),
    "embeddings of whole numbers in the query": Case(
        NEW,
        "embeddings are int64",
        query(x=np.ones((2, E), np.int64)),
    ),
    "support of other weights": Case(
        "classify --out p.csv --ckpt_path x.ckpt --support s.safetensors --query q.npz",
        "was embedded with other weights than the features of the training",
        files(recorded(weights_sha256="another")),
    ),
    "support made in another way": Case(
        "classify --out p.csv --ckpt_path x.ckpt --support s.safetensors --query q.npz",
        "was embedded with another recipe than the features of the training",
        files(recorded(recipe="another")),
    ),
    "folder of features": Case(
        f"{DONE} --support data --query q.npz",
        "holds features",
        files(data),
    ),
    "no such backbone file": Case(
        f"{DONE} --support images --query q.npz --weights b.safetensors",
        "b.safetensors: cannot be read",
        files(lambda world: save(world.folder / "images" / "a" / "1.png")),
    ),
    "checkpoint of an earlier release alone": Case(
        ALONE,
        "records no normalisation",
        files(checkpoint(EpisodeDataModule=None)),
    ),
    "damaged record": Case(ALONE, DAMAGED, files(checkpoint(EpisodeDataModule=record(normalize="l3")))),
    "record without its mean": Case(
        ALONE, DAMAGED, files(checkpoint(EpisodeDataModule=record(normalize="center_l2")))
    ),
    "record of a mean of another size": Case(
        ALONE,
        DAMAGED,
        files(checkpoint(EpisodeDataModule=record(normalize="center_l2", mean=torch.ones(3)))),
    ),
    "learner for functions": Case(
        f"{EXPORT} --out c.onnx",
        "holds a GeneralLEO, which predicts values",
        files(of(general)),
    ),
    "weights that are no numbers": Case(
        ALONE,
        "NaN",
        files(lambda world: nan_weights(world)),
    ),
    "place that is not there": Case(
        f"{NEW} --out nowhere/p.csv",
        "cannot be written",
        files(),
    ),
    "place that is a folder": Case(f"{NEW} --out done", "cannot be written", files()),
    "place that may not be written": Case(
        f"{NEW} --out a/p.csv",
        "cannot be written",
        files(folder("a")),
        ("a", 0o500),
    ),
    "support that may not be read": Case(
        f"{DONE} --support s.safetensors --query q.npz",
        "s.safetensors: Permission denied",
        files(text("s.safetensors", "features")),
        ("s.safetensors", 0),
    ),
    "no query": Case(f"{DONE} --support s.npz", "--query", files()),
    "no support": Case(f"{DONE} --query q.npz", "--support", files()),
    "no checkpoint": Case(f"classify --out p.csv {FILES} --method trained", "needs --ckpt_path", files()),
    "backbone that is a file": Case(f"{NEW} --backbone s.npz", "is a file; name it with --weights", files()),
    "images without a network": Case(
        "classify --support images --query q.npz",
        "images need a network that embeds them",
        files(lambda world: save(world.folder / "images" / "a" / "1.png")),
    ),
    "one photo as the support": Case(
        f"{DONE} --support images/a/1.png --query q.npz --weights w",
        "images/a/1.png: is one image; name a folder with a folder of images for each class",
        files(lambda world: save(world.folder / "images" / "a" / "1.png")),
    ),
    "photo of another kind": Case(
        f"{DONE} --support s.npz --query q.heic",
        "q.heic: is a photo that Pillow does not read; save it as JPEG",
        files(text("q.heic", "ftyp")),
    ),
    "empty folder of queries": Case(
        f"{DONE} --support s.npz --query a", "a: holds no images", files(folder("a"))
    ),
    "backbone without weights": Case(
        "classify --support images --query q.npz --backbone resnet18",
        "--backbone resnet18 needs weights: --weights FILE",
        files(lambda world: save(world.folder / "images" / "a" / "1.png")),
    ),
    "support of splits": Case(
        f"{DONE} --support images --query q.npz",
        "has the folders test, train, which are splits rather than classes",
        files(
            lambda world: [save(world.folder / "images" / name / "a" / "1.png") for name in ("train", "test")]
        ),
    ),
    "support one level too high": Case(
        f"{DONE} --support images --query q.npz",
        "holds folders of folders (a/x); name the one whose folders are the classes, such as images/b",
        files(
            lambda world: [
                save(world.folder / "images" / name / folder / "1.png") for name in "ab" for folder in "xy"
            ]
        ),
    ),
    "a share that is none": Case(f"{NEW} --reject 5", "is not a share between 0% and 100%", files()),
    "a share that is a word": Case(f"{NEW} --reject few", "is not a share between 0% and 100%", files()),
    "a share of too few examples": Case(
        f"{NEW} --reject 5%",
        "needs 19 examples in classes of two or more, and s.npz has 4; use --reject 20%",
        files(),
    ),
    "nothing to hold out": Case(
        f"{NEW} --reject 5%",
        "s.npz has one example of each class, so none can be held out",
        files(embeddings=np.eye(2, E, dtype=np.float32), labels=np.array(["a", "b"])),
    ),
    "two methods": Case(
        f"{NEW} --transductive tim --method cl2n", "--transductive cannot be combined with --method", files()
    ),
    "a transductive method that rejects": Case(
        f"{NEW} --transductive tim --reject 5%", "--transductive cannot be combined with --reject", files()
    ),
    "calibration for nothing": Case(f"{NEW} --calibrate s.npz", "add --reject", files()),
    "calibration by too few": Case(
        f"{NEW} --reject 5% --calibrate s.npz",
        "calibration needs two classes with 3 images",
        files(),
    ),
    "disagreement of nothing": Case(
        f"classify {FILES} --disagreement", "logistic regression draws no classifiers", files()
    ),
    # export
    "classes by weights that are NaN": Case(ALONE, "the predictions are NaN", files(not_finite)),
    "export of weights that are NaN": Case(
        f"{EXPORT} --out c.onnx", "the predictions are NaN", files(not_finite)
    ),
    "export of nothing": Case("export", "the following arguments are required"),
    "export with an unknown flag": Case(f"{EXPORT} --out c.onnx --fast", "--fast"),
    "export without a value": Case("export --out", "argument --out"),
    "export to another kind of file": Case(
        f"{EXPORT} --out c.txt",
        "c.txt",
    ),
    "export to nowhere": Case(
        f"{EXPORT} --out nowhere/c.onnx",
        "cannot be written",
    ),
    "export from pixels without a network": Case(
        f"{EXPORT} --out c.safetensors --pixels",
        "c.safetensors: must end in .onnx: a model from pixels holds",
    ),
    "export of no checkpoint": Case(f"{EXPORT} --out c.onnx", "no such checkpoint"),
    "export of a damaged checkpoint": Case(f"{EXPORT} --out c.onnx", "x.ckpt", text("x.ckpt", "weights")),
    "export of code": Case(f"{EXPORT} --out c.onnx", "x.ckpt", saved({"state_dict": Hostile()})),
    "export of another program's": Case(f"{EXPORT} --out c.onnx", "x.ckpt", saved({"weight": torch.ones(2)})),
    "export of what is not linear": Case(
        f"{EXPORT} --out c.onnx",
        "not linear",
        files(of(lambda: MatchingNetworks(E))),
    ),
    "export of a checkpoint that may not be read": Case(
        f"{EXPORT} --out c.onnx", "x.ckpt", checkpoint(), ("x.ckpt", 0)
    ),
}


def nan_weights(world: World) -> None:
    content = torch.load(world.run / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"] = {name: weight * torch.nan for name, weight in content["state_dict"].items()}
    torch.save(content, world.folder / "x.ckpt")
