"""Bad input, and the words that its refusal must contain, for test_refusals.py.

The other verbs' cases are in `refusals.py` files below commands/, images/ and inference/.
"""

import os
import pickle
import resource
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from leo_lightning.commands import features
from leo_lightning.common.file_lock import file_lock
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.splits import SPLITS
from tests.common.server import Behaviour, serve
from tests.data.banks import make_bank
from tests.data.importers import bad_sources
from tests.data.importers.sources import (
    authors_archive,
    authors_pickle,
    embeddings_of,
    labels_of,
    write_npy,
    write_npz,
)

NOBODY = 65534
PAGE = b"<!doctype html><html><head><title>Log in &amp;\ngo</title></head><body>...</body></html>"


@dataclass(frozen=True)
class World:
    """The place where a case is arranged."""

    folder: Path
    """The command runs here; empty at first."""
    run: Path
    """The folder of a finished run, elsewhere."""
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack
    """Closed when the command has ended."""


@dataclass(frozen=True)
class Case:
    """One bad input."""

    command: str
    """The words after `python -m leo_lightning`."""
    word: str
    """The words of the line on stderr that matter; `…` stands for anything between them."""
    arrange: Callable[[World], object] = lambda world: None
    locked: tuple[str, int] | None = None
    """A path, and the permissions that it keeps."""
    environment: dict[str, str] | None = None
    """Environment variables; the case then runs in its own process."""
    keeps: str = ""
    """The folder that stays because a run or a download had started."""


# Arrangements


def text(name: str, content: str | bytes) -> Callable[[World], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda world: (world.folder / name).write_bytes(data)


def folder(name: str) -> Callable[[World], object]:
    return lambda world: (world.folder / name).mkdir(parents=True)


def data(world: World, **banks: FeatureBank) -> Path:
    """Write a folder of valid features, with the given banks for some splits."""
    root = world.folder / "data"
    root.mkdir()
    for split in SPLITS:
        names = [f"{split}{i}" for i in range(5)]
        save_bank(banks.get(split) or make_bank(names, images=20, split=split), root / f"{split}.safetensors")
    return root


def rewritten(
    tensors: dict[str, torch.Tensor | None] | None = None, **header: str | None
) -> Callable[[World], object]:
    """Valid features, except for the given tensors and header entries of train; None removes one."""

    def arrange(world: World) -> None:
        path = data(world) / "train.safetensors"
        with safe_open(path, framework="pt") as file:
            content = {key: file.get_tensor(key).clone() for key in file.keys()} | (tensors or {})
            metadata = file.metadata() | header
        kept = {key: value for key, value in metadata.items() if value is not None}
        save_file({key: value for key, value in content.items() if value is not None}, path, kept)

    return arrange


def cut(name: str, length: int, make: Callable[[World], object]) -> Callable[[World], object]:
    def arrange(world: World) -> None:
        make(world)
        (world.folder / name).write_bytes((world.folder / name).read_bytes()[:length])

    return arrange


def source(make: Callable[[Path], object]) -> Callable[[World], object]:
    """A folder `src` to import from."""

    def arrange(world: World) -> None:
        (world.folder / "src").mkdir()
        make(world.folder / "src")

    return arrange


def page(name: str) -> Callable[[World], object]:
    return source(lambda src: (src / name).write_bytes(PAGE))


def npz(**arrays: Any) -> Callable[[World], object]:
    good = {"embeddings": embeddings_of("train"), "labels": labels_of("train")}
    return source(lambda src: np.savez(src / "train.npz", **(good | arrays)))


def unlabelled(world: World) -> None:
    np.save(world.folder / "all.npy", embeddings_of("train"))


def torch_file(name: str, content: object) -> Callable[[World], object]:
    return source(lambda src: torch.save(content, src / name))


def finished(world: World) -> Path:
    """A copy of the finished run, in `done`."""
    return Path(shutil.copytree(world.run, world.folder / "done"))


def checkpoint(**changes: Any) -> Callable[[World], object]:
    """`x.ckpt`: the finished run's checkpoint with other content; None removes an entry."""

    def arrange(world: World) -> None:
        content = torch.load(world.run / "checkpoints" / "best.ckpt", weights_only=True) | changes
        kept = {key: value for key, value in content.items() if value is not None}
        torch.save(kept, world.folder / "x.ckpt")

    return arrange


def not_finite(world: World) -> None:
    """`x.ckpt`: the finished run's checkpoint with weights that are NaN."""
    content = torch.load(world.run / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"] = {name: weight * torch.nan for name, weight in content["state_dict"].items()}
    torch.save(content, world.folder / "x.ckpt")


def saved(content: object) -> Callable[[World], object]:
    return lambda world: torch.save(content, world.folder / "x.ckpt")


def config_of_run(content: str) -> Callable[[World], object]:
    """`done`: a run of an earlier release, whose configuration is in config.yaml alone."""

    def arrange(world: World) -> None:
        folder = finished(world)
        (folder / "config.yaml").write_text(content)
        path = folder / "checkpoints" / "best.ckpt"
        torch.save({k: v for k, v in torch.load(path, weights_only=True).items() if k != "config"}, path)

    return arrange


def trained_on(world: World) -> None:
    """The finished run in `done`, which trains on between the reading of its checkpoint and the lock."""
    last = finished(world) / "checkpoints" / "last.ckpt"

    @contextmanager
    def file_lock(path: Path, held: str) -> Iterator[None]:
        torch.save(torch.load(last, weights_only=True) | {"global_step": 7}, world.folder / "part")
        (world.folder / "part").replace(last)
        yield

    world.monkeypatch.setattr("leo_lightning.runs.run.file_lock", file_lock)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


@contextmanager
def locked(where: Path, name: str, mode: int) -> Iterator[None]:
    """Restrict the permissions of `where / name`, also for root, who could otherwise read and write it."""
    with ExitStack() as stack:
        if os.geteuid() == 0:
            for path in (where, *where.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
            stack.callback(os.seteuid, 0)
            if not os.access(where, os.X_OK, effective_ids=True):
                pytest.skip(f"root is not refused anything, and others may not enter {where}")
        (where / name).chmod(mode)
        stack.callback((where / name).chmod, 0o700)
        yield


def disk_of(size: int, make: Callable[[World], object] = lambda world: None) -> Callable[[World], object]:
    """A disk that refuses files of more than `size` bytes."""

    def arrange(world: World) -> None:
        make(world)
        _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        world.stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    return arrange


def full_disk(error: OSError) -> Callable[[World], object]:
    """A disk that fails when a configuration is written."""

    def write_text(path: Path, *args: object, **kwargs: object) -> int:
        raise error

    return lambda world: world.monkeypatch.setattr(Path, "write_text", write_text)


def without(package: str) -> Callable[[World], object]:
    return lambda world: world.monkeypatch.setitem(sys.modules, package, None)


def gpus(count: int) -> Callable[[World], object]:
    def arrange(world: World) -> None:
        world.monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        world.monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return arrange


def server(behaviour: Behaviour) -> Callable[[World], object]:
    """A server on this machine in place of the authors'."""

    def arrange(world: World) -> None:
        world.monkeypatch.setenv("no_proxy", "*")
        world.monkeypatch.setattr(features, "AUTHORS_URL", world.stack.enter_context(serve(behaviour)))

    return arrange


def no_proxy(world: World) -> None:
    world.monkeypatch.setenv("no_proxy", "*")


# The cases by topic

FIT = "fit --data.root data"
HELD = (
    "data: already holds features (train, val, test); remove them, or name another folder "
    "(import and extract replace them with --overwrite)"
)
FROM_SRC = "features import src out"
IS_PAGE = "is a web page ('Log in & go'), not a file of this kind; open the address that it came from"
FROM_ZIP = "features import a.zip out"

FEATURE_FILES = {
    "no such folder": Case("fit --data.root nowhere", "no such folder of features (relative to"),
    "a folder with the name of shipped features": Case(
        "fit --data.root omniglot",
        "write ./omniglot for these",
        lambda world: data(world).rename(world.folder / "omniglot"),
    ),
    "folder without features": Case(FIT, "has no split 'train'", folder("data")),
    "root of arrays": Case(
        "fit --data.root src", "src: holds arrays…features import src DST", source(bad_sources.bad_objects)
    ),
    "root of images": Case(FIT, "holds images, not features", folder("data/train")),
    "root of an unfinished extraction": Case(FIT, "holds an unfinished extraction", folder("data/.extract")),
    "no split to validate on": Case(
        FIT, "has no split 'val'", lambda world: (data(world) / "val.safetensors").unlink()
    ),
    "no safetensors file": Case(
        FIT,
        "is damaged, or not a safetensors file",
        lambda world: (data(world) / "train.safetensors").write_bytes(b"features"),
    ),
    "empty feature file": Case(
        "features info data",
        "is damaged, or not a safetensors file",
        lambda world: (data(world) / "train.safetensors").write_bytes(b""),
    ),
    "feature file cut short": Case(
        FIT, "is damaged, or not a safetensors file", cut("data/train.safetensors", -100, data)
    ),
    "other safetensors file": Case(FIT, "is not a feature file", rewritten(format=None)),
    "damaged header": Case(FIT, "'class_names' in the header", rewritten(class_names="[a")),
    "NaN in a feature file": Case(
        FIT,
        "numbers that are not finite in 100 of 100 rows",
        rewritten({"embeddings": torch.full((100, 4), torch.nan)}),
    ),
    "a class in two splits": Case(
        FIT,
        "class 'train1' in both 'train' and 'test'",
        lambda world: data(world, test=make_bank(["x", "train1", "y", "z", "w"], images=20)),
    ),
    "splits of two backbones": Case(
        FIT,
        "embeddings have 6 numbers, those of 'train' have 4",
        lambda world: data(world, val=make_bank(list("abcde"), images=20, size=6)),
    ),
    "too few classes": Case(
        "fit --data.root synthetic --data.way 70", "64 classes are too few for 70-way tasks"
    ),
    "too few images": Case(
        "fit --data.root synthetic --data.query 15 --data.shot 190",
        "class train00 has 200 images, a task needs 205",
    ),
    "info of nothing": Case("features info nowhere", "no such folder of features"),
}

IMPORTERS = {
    "no such source": Case("features import nowhere out", "no such file or folder"),
    "source of another kind": Case(
        "features import a.tar out", "is neither a folder nor a zip archive", text("a.tar", "features")
    ),
    "a file of a folder": Case(
        "features import train.npy out", "give the folder that holds it", text("train.npy", "features")
    ),
    "one file of all classes": Case(
        "features import all.npz out", "features divide all.npz DST", text("all.npz", "features")
    ),
    "division of a folder": Case("features divide src out", "src: is a folder; name one file", folder("src")),
    "division of nothing": Case("features divide all.npz out", "all.npz: no such file"),
    "division without labels": Case("features divide all.npy out", "its labels must be in", unlabelled),
    "division of too little": Case(
        "features divide data/train.safetensors out --val 2 --test 2", "5 classes leave 1 to train on", data
    ),
    "division that leaves out all": Case(
        "features divide data/val.safetensors out --min-images 21", "or --min-images", data
    ),
    "division into features": Case("features divide data/train.safetensors data", "already holds", data),
    "folder of something else": Case(FROM_SRC, "no features found", source(bad_sources.bad_nothing)),
    "page in place of an archive": Case("features import a.zip out", IS_PAGE, text("a.zip", PAGE)),
    "page in place of an npz": Case(FROM_SRC, IS_PAGE, page("train.npz")),
    "page in place of a pickle": Case(FROM_SRC, IS_PAGE, page("train_embeddings.pkl")),
    "page in place of tensors": Case(FROM_SRC, IS_PAGE, page("train.pt")),
    "page in place of features": Case("features info a.safetensors", IS_PAGE, text("a.safetensors", PAGE)),
    "ready features": Case("features import data out", "already holds feature files", data),
    "labels of another length": Case(FROM_SRC, "12 embeddings but 3 labels", npz(labels=np.arange(3))),
    "npz of objects": Case(FROM_SRC, "save labels.astype(str)", source(bad_sources.bad_objects)),
    "npy without labels": Case(
        FROM_SRC,
        "its labels must be in train_labels.npy, .txt or .csv beside it, and there is none",
        source(bad_sources.bad_no_labels),
    ),
    "npy with labels twice": Case(
        FROM_SRC,
        "its labels must be in train_labels.npy, .txt or .csv beside it, and there is more than one",
        source(lambda src: [write_npy(src, "train"), (src / "train_labels.txt").touch()]),
    ),
    "npy with labels that are no text": Case(
        FROM_SRC,
        "cannot be read as text",
        source(
            lambda src: [
                bad_sources.bad_no_labels(src),
                (src / "train_labels.txt").write_bytes(b"\xff\xfe\x00"),
            ]
        ),
    ),
    "npz called npy": Case(
        FROM_SRC,
        "'embeddings' is neither an array nor a list",
        source(
            lambda src: [
                write_npz(src, "train"),
                (src / "train.npz").rename(src / "train.npy"),
                (src / "train_labels.txt").write_text("a"),
            ]
        ),
    ),
    "torch file that runs code": Case(FROM_SRC, "src/train.pt", torch_file("train.pt", Hostile())),
    "torch file cut short": Case(FROM_SRC, "src/train.pt", source(bad_sources.bad_torch_cut)),
    # the authors' archive, zipped or not
    "damaged archive": Case(
        FROM_ZIP,
        "is a damaged archive",
        text("a.zip", b"PK\x05\x06" + bytes(6) + b"\xff" * 10 + bytes(2)),
    ),
    "archive with a damaged member": Case(
        FROM_ZIP,
        "embeddings/miniImageNet/center/train_embeddings.pkl",
        lambda world: overwrite(authors_archive(world.folder / "a.zip"), 120, b"\xff" * 40),
    ),
    "other set than the archive's": Case(
        f"{FROM_ZIP} --dataset tieredImageNet",
        "does not hold the requested set",
        lambda world: authors_archive(world.folder / "a.zip"),
    ),
    "several sets": Case(
        FROM_ZIP,
        "holds several sets of features",
        lambda world: authors_archive(world.folder / "a.zip", ("mini/center", "mini/multiview")),
    ),
    "pickle that runs code": Case(
        FROM_SRC,
        "refused to load a pickle that calls '",
        source(lambda src: (src / "train_embeddings.pkl").write_bytes(pickle.dumps(Hostile()))),
    ),
    "pickle cut short": Case(
        FROM_SRC,
        "is cut short, damaged or not a pickle",
        source(lambda src: (src / "train_embeddings.pkl").write_bytes(authors_pickle("train")[:-50])),
    ),
    "archive that fills the memory": Case(
        FROM_ZIP, "train_embeddings.pkl", lambda world: zip_bomb(world.folder / "a.zip")
    ),
    # the destination
    "destination that holds features": Case("features synthesize data", HELD, data),
    "destination that is a file": Case(
        "features import src file",
        "is a file",
        lambda world: [source(lambda src: write_npz(src, "train"))(world), text("file", "")(world)],
    ),
    "destination below a file": Case("features synthesize file/out", "Not a directory", text("file", "")),
    # the command itself
    "features without a command": Case("features", "the following arguments are required"),
    "unknown features command": Case("features inport src out", "argument COMMAND"),
    "unknown option": Case("features info data --fast", "--fast"),
    "seed that is no number": Case("features synthesize out --seed x", "argument --seed"),
    "seed below 0": Case("features synthesize out --seed -1", "--seed"),
}


def overwrite(path: Path, start: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(data)


def zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train_embeddings.pkl", bytes(2**25))


GENERAL = "leo_lightning.learners.general_leo.GeneralLEO"
FUNCTIONS = "leo_lightning.data.function_data.FunctionDataModule"

CONFIGURATION = {
    "unknown command": Case("fitt", "unknown command fitt"),
    "command unlike any other": Case("benchmark", "unknown command benchmark"),
    "unknown field": Case("fit --data.shots 5", "unknown field shots; did you mean shot?"),
    "unknown field of the learner": Case(
        "fit --model.learner.kl_wieght 1",
        "unknown field kl_wieght; did you mean kl_weight?",
    ),
    "field unlike any other": Case("fit --optimizer Adam", "unknown field optimizer"),
    "word that is not a field": Case("fit fast", "unknown field fast"),
    "field without a value": Case("fit --data.shot", "--data: expected one argument"),
    "--config without a value": Case("fit --config", "expected one argument"),
    "wrong type": Case("fit --data.shot five", "shot: Expected"),
    "fraction": Case("fit --data.shot 1.5", "shot: Expected"),
    "null": Case("fit --data.shot null", "data.shot"),
    "null in the learner": Case("fit --model.learner.dropout null", "model.learner.dropout"),
    "wrong type in the learner": Case("fit --model.learner.dropout x", "dropout: Expected"),
    "rate without a limit": Case("fit --model.learning_rate .inf", "model.learning_rate is inf"),
    "rate beyond all numbers": Case("fit --model.learning_rate 1e999", "model.learning_rate is inf"),
    "clipping at infinity": Case("fit --model.clip_norm .inf", "model.clip_norm is inf"),
    "infinity in the learner": Case("fit --model.learner.kl_weight .inf", "model.learner.kl_weight is inf"),
    "NaN in a schedule": Case(
        "fit --model.lr_scheduler StepLR --model.lr_scheduler.step_size 3 --model.lr_scheduler.gamma .nan",
        "model.lr_scheduler.gamma is nan",
    ),
    "NaN in a configuration": Case(
        "fit --config a.yaml", "model.clip_value is nan", text("a.yaml", "model: {clip_value: .nan}")
    ),
    "schedule without its length": Case(
        "fit --model.lr_scheduler CosineAnnealingLR", "model.lr_scheduler: …are required: T_max\n"
    ),
    "field in short": Case("fit --model.lr 0.1", "did you mean model.learning_rate?"),
    "method in small letters": Case("fit --model.learner maml", "model.learner: maml …did you mean MAML?"),
    "mistyped method in a file": Case(
        "fit --config a.yaml",
        "model.learner: Prototypicl …did you mean PrototypicalNetworks?",
        text("a.yaml", "model: {learner: {class_path: Prototypicl}}"),
    ),
    "mistyped configuration": Case(
        "fit --config configs/quickstrat.yaml", "no such file; did you mean configs/quickstart.yaml?"
    ),
    "unlike any method": Case("fit --model.learner xyz", "list the methods with --model.learner.help"),
    "help about a mistyped method": Case("fit --model.learner.help Reptil", "did you mean Reptile?"),
    "flag of a verb without any": Case("methods --all", "unrecognized arguments: --all"),
    "Lightning's folder": Case("fit --trainer.default_root_dir a", "set --run.root instead"),
    "NaN for a rate": Case("fit --model.learning_rate nan", "model.learning_rate"),
    "no such choice": Case("fit --data.normalize l3", "normalize: Expected"),
    "unknown word for test_query": Case("fit --data.test_query most", "test_query: Expected"),
    "value for a section": Case("fit --data Foo", "data: Foo is not the path of a class"),
    "unknown value of --resume": Case("fit --resume maybe", "--resume: invalid choice"),
    "no such method": Case("fit --model.learner Foo", "model.learner"),
    "class that is not a method": Case("fit --model.learner torch.nn.Linear", "model.learner"),
    "method in a missing module": Case(
        "fit --model.learner leo_lightning.maml.MAML",
        "model.learner",
    ),
    "no such base learner": Case(
        f"fit --model.learner {GENERAL} --model.learner.base Foo",
        "base: Foo is not the path of a class",
    ),
    "no such data module": Case(
        "fit --data torch.nn.Linear",
        "does not correspond to a subclass",
    ),
    "classes for a method for functions": Case(
        "fit --model.learner leo_lightning.learners.maml_regression.MAMLRegression",
        "MAMLRegression predicts values, and the tasks of EpisodeDataModule ask for classes",
    ),
    "functions for a method for classes": Case(
        f"fit --data {FUNCTIONS}",
        "LEO predicts classes, and the tasks of FunctionDataModule ask for values",
    ),
    "points of another size": Case(
        f"fit --data {FUNCTIONS} --model.learner {GENERAL} --model.learner.base "
        "leo_lightning.learners.generated_mlp.MLPRegressor --model.learner.base.inputs 2",
        "inputs is 2, and a point of the data has 1 and its value",
    ),
    "gradient limit of 0": Case(
        "fit --model.learner leo_lightning.learners.maml_regression.MAMLRegression "
        f"--model.learner.gradient_clip 0 --data {FUNCTIONS}",
        "gradient_clip is 0.0",
    ),
    "values without noise": Case(f"fit --data {FUNCTIONS} --data.noise 0", "data.noise"),
    "one way": Case("fit --data.way 1", "data.way"),
    "one way in training": Case("fit --data.train_way 1", "data.train_way"),
    "no shot": Case("fit --data.shot 0", "data.shot"),
    "no queries": Case("fit --data.query 0", "data.query"),
    "no test queries": Case("fit --data.test_query 0", "data.test_query"),
    "fewer than no unknown classes": Case("fit --data.unknown -1", "data.unknown"),
    "unknown classes and all queries": Case(
        "fit --data.unknown 2 --data.test_query all", "set --data.test_query 10, or --data.unknown 0"
    ),
    "too few classes for unknown ones": Case(
        "fit_test --data.root synthetic --data.unknown 16",
        "20 classes are too few for 5-way tasks with 16 unknown classes; lower --data.unknown",
    ),
    "no tasks in a batch": Case("fit --data.batch_size 0", "data.batch_size"),
    "no steps in an epoch": Case("fit --data.steps_per_epoch 0", "data.steps_per_epoch"),
    "no validation tasks": Case("fit --data.val_tasks 0", "data.val_tasks"),
    "workers below 0": Case("fit --data.num_workers -1", "data.num_workers"),
    "rate below 0": Case("fit --model.learning_rate -1", "model.learning_rate"),
    "clipping to nothing": Case("fit --model.clip_value 0", "model.clip_value"),
    "norm below 0": Case("fit --model.clip_norm -0.1", "model.clip_norm"),
    "no bad steps": Case("fit --model.max_bad_steps 0", "model.max_bad_steps"),
    "no compiler": Case(
        "fit --model.compile true",
        "model.compile",
        environment={"PATH": "/nowhere", "CXX": ""},
    ),
    "temperature of 0": Case(
        "fit --model.learner leo_lightning.learners.matching.MatchingNetworks --model.learner.temperature 0",
        "temperature is 0.0",
    ),
    "gate of 1": Case(
        "fit --model.learner leo_lightning.learners.meta_lstm.MetaLSTM --model.learner.inner_lr 1",
        "inner_lr is 1.0",
    ),
    "samples of a deterministic LEO": Case(
        "fit --model.learner.deterministic true --model.learner.test_samples 3",
        "nothing is drawn",
    ),
    "compiling an LSTM": Case(
        "fit --model.learner leo_lightning.learners.matching.MatchingNetworks "
        "--model.learner.full_context true --model.compile true",
        "model.compile cannot compile full_context",
    ),
    "compiling learn2learn": Case(
        "fit --model.learner leo_lightning.learners.learn2learn_methods.Learn2LearnMAML --model.compile true",
        "model.compile",
    ),
    "dropout of 1": Case("fit --model.learner.dropout 1.0", "dropout is 1.0"),
    "steps below 0": Case("fit --model.learner.latent_steps -1", "latent_steps is -1"),
    "no latents": Case("fit --model.learner.num_latents 0", "num_latents is 0"),
    "weight below 0": Case("fit --model.learner.kl_weight -1", "kl_weight is -1.0"),
    "seed out of range": Case(
        "fit --seed_everything -1", "-1 is not in bounds, numpy accepts from 0 to 4294967295"
    ),
    "seed that is a word": Case("fit --seed_everything x", "seed_everything: Expected"),
    "checkpoints every 0 steps": Case("fit --run.checkpoint_every 0", "run.checkpoint_every"),
    "pictures below 0": Case("fit --run.pictures_every -1", "run.pictures_every"),
    "run without a name": Case("fit --run.name=", "run.name"),
    "run named by a path": Case("fit --run.name ../up", "run.name"),
    "no steps": Case("fit --trainer.max_steps 0", "trainer.max_steps"),
    "no epochs": Case("fit --trainer.max_epochs 0", "trainer.max_epochs"),
    "less than a step": Case(
        "fit --trainer.limit_train_batches 0.001",
        "limit_train_batches",
    ),
    "test of nothing": Case(
        "test --ckpt_path done/checkpoints/best.ckpt --trainer.limit_test_batches 0",
        "trainer.limit_test_batches",
        finished,
    ),
    "steps below -1": Case("fit --trainer.max_steps -2", "max_steps"),
    "gradients of 0 batches": Case(
        "fit --trainer.accumulate_grad_batches 0",
        "trainer.accumulate_grad_batches",
    ),
    "validation every 0 epochs": Case(
        "fit --trainer.check_val_every_n_epoch 0",
        "trainer.check_val_every_n_epoch",
    ),
    "no checkpoints": Case(
        "fit --trainer.enable_checkpointing false",
        "trainer.enable_checkpointing",
    ),
    "nothing but steps": Case(
        "fit --trainer.barebones true",
        "trainer.barebones",
    ),
    "averaged weights that no checkpoint holds": Case(
        "fit --trainer.callbacks+=StochasticWeightAveraging --trainer.callbacks.swa_lrs=0.1 "
        "--trainer.callbacks.device=null",
        "trainer.callbacks",
    ),
    "callback that cannot be written down": Case(
        "fit --trainer.callbacks+=Timer --trainer.callbacks.duration=00:00:00:01",
        "config.yaml",
    ),
    "validation after the epoch": Case(
        "fit --trainer.val_check_interval 5000",
        "val_check_interval",
    ),
    "Lightning's clipping": Case(
        "fit --trainer.gradient_clip_val 1",
        "trainer.gradient_clip_val",
    ),
    "no such logger": Case("fit --trainer.logger Foo", "trainer.logger"),
    "logger whose folder cannot be made": Case(
        "fit --trainer.logger TensorBoardLogger --trainer.logger.save_dir a/b",
        "trainer.logger: TensorBoardLogger cannot begin (…a/b: Not a directory)…--trainer.logger false",
        text("a", ""),
    ),
    "logger without its folder": Case(
        "fit --trainer.logger CSVLogger",
        "trainer.logger",
    ),
    "validation of what was trained on": Case(
        "validate --ckpt_path done/checkpoints/best.ckpt --data.train_on_val true",
        "data.train_on_val",
        finished,
    ),
    "no such configuration": Case("fit --config nowhere.yaml", "no such file"),
    "configuration that is a folder": Case("fit --config a", "is a folder", folder("a")),
    "broken YAML": Case(
        "fit --config a.yaml",
        "not valid YAML",
        text("a.yaml", "data: [\n"),
    ),
    "endless YAML": Case(
        "fit --config a.yaml",
        "not valid YAML",
        text("a.yaml", "trainer: &x {max_steps: 3, self: *x}\n"),
    ),
    "configuration that is a pipe": Case(
        "fit --config pipe",
        "is not a file",
        lambda world: os.mkfifo(world.folder / "pipe"),
    ),
    "binary configuration": Case("fit --config a.yaml", "not valid YAML", text("a.yaml", bytes(range(256)))),
    "YAML that runs code": Case(
        "fit --config a.yaml",
        "not valid YAML",
        text("a.yaml", "run: !!python/object/apply:os.mkdir [executed]\n"),
    ),
    "YAML without a table": Case(
        "fit --config a.yaml",
        "holds no table of fields",
        text("a.yaml", "- 1\n- 2\n"),
    ),
    "empty configuration": Case(
        "fit --config a.yaml",
        "holds no table of fields",
        text("a.yaml", ""),
    ),
    "YAML with a number for a section": Case(
        "fit --config a.yaml", "expected fields, got 5", text("a.yaml", "run: 5\n")
    ),
    "YAML without a method": Case("fit --config a.yaml", "model.learner", text("a.yaml", "model: null\n")),
    "YAML with an unknown field": Case(
        "fit --config a.yaml",
        "unknown field shots",
        text("a.yaml", "data:\n  shots: 5\n"),
    ),
    "YAML with an unknown section": Case(
        "fit --config a.yaml",
        "unknown field dato.shot",
        text("a.yaml", "dato:\n  shot: 5\n"),
    ),
    "broken configuration of a run": Case(
        "test --ckpt_path done/checkpoints/best.ckpt",
        "/done/config.yaml",
        config_of_run("5"),
    ),
}

TEST = "test --ckpt_path x.ckpt"
DONE = "--ckpt_path done/checkpoints/best.ckpt"
CENTROID = "leo_lightning.learners.centroid.NearestCentroid"

CHECKPOINTS = {
    "test without a checkpoint": Case("test", "test needs a trained model"),
    "no such checkpoint": Case(TEST, "no such checkpoint"),
    "no such checkpoint beside others": Case(
        "test --ckpt_path done/checkpoints/new.ckpt",
        "no such checkpoint",
        finished,
    ),
    "checkpoint that is a folder": Case(
        "test --ckpt_path a",
        "a: no run folder with a checkpoints/best.ckpt",
        folder("a"),
    ),
    "checkpoint beside a damaged configuration": Case(
        "test --ckpt_path done/checkpoints/best.ckpt",
        "done/config.yaml",
        config_of_run("data: {a: ["),
    ),
    "checkpoint of pre-training": Case(
        "test --ckpt_path done/checkpoints/best.ckpt",
        "unknown field images",
        config_of_run("data: {images: photos}"),
    ),
    "nothing to resume": Case(
        "fit --resume auto",
        "no run here has a checkpoints/last.ckpt…--config FILE",
    ),
    "nothing to train": Case(
        f"fit --config nothing.yaml --model.learner {CENTROID}",
        "NearestCentroid has nothing to train",
        text("nothing.yaml", "data: {way: 5}"),
    ),
    "resuming a test": Case("test --resume auto", "--resume continues training"),
    "run that another process trains": Case(
        f"fit {DONE} --trainer.max_steps 9",
        "/done: another process trains this run; wait for it, or stop it (process…on",
        lambda world: world.stack.enter_context(file_lock(finished(world) / ".lock")),
    ),
    "run that another process has just trained on": Case(
        f"fit {DONE.replace('best', 'last')} --trainer.max_steps 9",
        "done/checkpoints/last.ckpt: another process has just trained on; run this again",
        trained_on,
    ),
    "last checkpoint that is damaged": Case(
        f"fit {DONE.replace('best', 'last')} --trainer.max_steps 9",
        "last.ckpt: is not…is whole, at step…; continue from it with --ckpt_path…done/checkpoints/best.ckpt",
        cut("done/checkpoints/last.ckpt", 5000, finished),
    ),
    "resumed with a damaged log": Case(
        f"fit {DONE} --trainer.max_steps 9",
        "done/metrics.csv: is damaged…utf-8",
        lambda world: (finished(world) / "metrics.csv").write_bytes(b"step\n\xff\n"),
    ),
    "resumed with a log without steps": Case(
        f"fit {DONE} --trainer.max_steps 9",
        "done/metrics.csv: is damaged…no column 'step'",
        lambda world: (finished(world) / "metrics.csv").write_text("a,b\n1,2\n"),
    ),
    "weights that are NaN": Case("predict --ckpt_path x.ckpt", "the predictions are NaN", not_finite),
    "empty checkpoint": Case(TEST, "x.ckpt", text("x.ckpt", "")),
    "checkpoint of text": Case(TEST, "x.ckpt", text("x.ckpt", "weights")),
    "checkpoint cut short": Case(TEST, "x.ckpt", cut("x.ckpt", 5000, checkpoint())),
    "damaged checkpoint": Case(
        TEST,
        "x.ckpt",
        lambda world: zipfile.ZipFile(world.folder / "x.ckpt", "w").writestr("data", "weights"),
    ),
    "checkpoint of code": Case(TEST, "x.ckpt", saved({"state_dict": Hostile()})),
    "checkpoint of a whole model": Case(TEST, "x.ckpt", saved(torch.nn.Linear(2, 2))),
    "checkpoint with a path in it": Case(TEST, "x.ckpt", checkpoint(path=Path("a"))),
    "checkpoint of bare weights": Case(TEST, "x.ckpt", saved({"weight": torch.ones(2)})),
    "checkpoint of another program": Case(TEST, "x.ckpt", checkpoint(hyper_parameters={"lr": 0.1})),
    "checkpoint without weights": Case(TEST, "x.ckpt", checkpoint(state_dict=None)),
    "checkpoint whose step count is a word": Case(TEST, "x.ckpt", checkpoint(global_step="six")),
    "checkpoint of another embedding size": Case(
        f"test {DONE} --data.root data",
        "the checkpoint was trained on embeddings of size 128, the data has size 4",
        lambda world: [finished(world), data(world)],
    ),
    "checkpoint of another learner": Case(
        f"test {DONE} --model.learner {CENTROID}",
        "the checkpoint holds a leo_lightning.learners.leo.LEO, the configuration a",
        finished,
    ),
    "checkpoint of another H": Case(
        f"test {DONE} --model.learner.num_latents 8",
        "the checkpoint's weights do not fit this model; leave these settings (or --config) out: num_latents",
        finished,
    ),
    "resumed with another H": Case(
        f"fit {DONE} --trainer.max_steps 9 --model.learner.num_latents 8",
        "the checkpoint's weights do not fit this model",
        finished,
    ),
}


DISK = {
    "run root that is a file": Case(
        "fit --run.root file",
        "file/quickstart/",
        text("file", ""),
    ),
    "run root that leads nowhere": Case(
        "fit --run.root link",
        "link: File exists",
        lambda world: (world.folder / "link").symlink_to("nowhere"),
    ),
    "run root that may not be written": Case(
        "fit --run.root a",
        "a/quickstart",
        folder("a"),
        ("a", 0o500),
    ),
    "run root that may not be read": Case(
        "fit --run.root a --resume auto", "a/quickstart", folder("a"), ("a", 0)
    ),
    "name that is not UTF-8": Case("fit --run.root a\udcff", "a?: the name is not UTF-8"),
    "TensorBoard's folder is a file": Case(
        f"fit {DONE} --trainer.max_steps 9",
        "trainer.logger: TensorBoardLogger cannot begin (…/tensorboard…--trainer.logger false",
        lambda world: [shutil.rmtree(finished(world) / "tensorboard"), text("done/tensorboard", "")(world)],
        keeps="done",
    ),
    "name too long": Case(f"fit --run.name {'x' * 300}", "runs/"),
    "full disk": Case(
        "fit",
        "cannot be written",
        full_disk(OSError(28, os.strerror(28))),
    ),
    "disk that takes no configuration": Case(
        "fit",
        "cannot be written",
        disk_of(100),
    ),
    "disk that takes no checkpoint": Case(
        "fit --data.val_tasks 2 --run.pictures_every 0",
        "/checkpoints/last.ckpt",
        disk_of(40_000),
        keeps="runs",
    ),
    "disk that takes no features": Case(
        "features synthesize out",
        "cannot be written",
        disk_of(1000),
    ),
    "disk that takes no imported features": Case(
        "features import src new/out",
        "cannot be written",
        disk_of(200, source(lambda src: write_npz(src, "train"))),
    ),
    "features that may not be read": Case(
        FIT,
        "Permission denied",
        data,
        ("data/train.safetensors", 0),
    ),
    "folder of features that may not be read": Case(
        "features info data", "data/train.safetensors", data, ("data", 0)
    ),
    "source that may not be read": Case(
        FROM_SRC,
        "cannot be read",
        source(lambda src: (src / "train_embeddings.pkl").write_bytes(authors_pickle("train"))),
        ("src/train_embeddings.pkl", 0),
    ),
    "destination that may not be written": Case(
        "features synthesize a/out", "Permission denied", folder("a"), ("a", 0o500)
    ),
    "destination with a name too long": Case(f"features synthesize {'x' * 300}", "File name too long"),
    "configuration that may not be read": Case(
        "fit --config a.yaml", "a.yaml", text("a.yaml", "data: {}"), ("a.yaml", 0)
    ),
    "checkpoint that may not be read": Case(TEST, "x.ckpt", checkpoint(), ("x.ckpt", 0)),
}

DEVICES = {
    "no GPU": Case("fit --trainer.accelerator gpu", "No supported gpu backend found", gpus(0)),
    "too few GPUs": Case(
        "fit --trainer.accelerator gpu --trainer.devices 99",
        "You requested gpu",
        gpus(1),
    ),
    "no TPU": Case("fit --trainer.accelerator tpu", "pip install"),
    "no such accelerator": Case("fit --trainer.accelerator abacus", "invalid accelerator name"),
    "0 devices": Case("fit --trainer.devices 0", "devices='0'"),
    "number of devices in words": Case("fit --trainer.devices some", "devices"),
    "more devices than cores": Case(
        "fit --trainer.devices 9999",
        "trainer.devices",
    ),
    "monitor that is not logged": Case(
        "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=hope --data.steps_per_epoch=1 "
        "--data.val_tasks=2 --trainer.log_every_n_steps=1",
        "hope",
        keeps="runs",
    ),
    "less than a batch to test": Case(
        f"test {DONE} --trainer.limit_test_batches 0.001",
        "limit_test_batches",
        finished,
        keeps="tiny",
    ),
    "0 machines": Case("fit --trainer.num_nodes 0", "num_nodes"),
    "no such precision": Case("fit --trainer.precision 8", "trainer.precision"),
    "half precision for all": Case(
        "fit --trainer.precision 16-true",
        "trainer.precision",
    ),
    "strategy that forks": Case(
        "fit --trainer.strategy ddp_spawn",
        "trainer.strategy",
    ),
    "no such strategy": Case("fit --trainer.strategy hope", "invalid strategy name"),
    "strategy for GPUs": Case("fit --trainer.strategy fsdp", "fsdp"),
    "test on a missing GPU": Case(
        f"test {DONE} --trainer.accelerator gpu",
        "No supported gpu backend found",
        lambda world: [finished(world), gpus(0)(world)],
    ),
}

PACKAGES = {
    "no wandb": Case(
        "fit --run.wandb offline",
        "--run.wandb offline",
        without("wandb"),
    ),
    "logger of a missing package": Case(
        "fit --trainer.logger MLFlowLogger",
        "cannot be built from these settings: MLFlowLogger: Requirement 'mlflow…pip install",
    ),
}


class EmptyArtifact:
    """W&B, where all artifacts are empty."""

    name = "tiny:v3"

    def __init__(self, timeout: int) -> None:
        pass

    def artifact(self, path: str, type: str) -> "EmptyArtifact":
        return self

    def download(self, root: str, skip_cache: bool) -> None:
        Path(root).mkdir(parents=True)


NETWORK = {
    "no web address": Case(
        "features download out --url ftp://x/a.zip",
        "//x/a.zip' is not a web address",
    ),
    "malformed address": Case(
        "features download out --url http://[x/a.zip", "//[x/a.zip' is not a web address"
    ),
    "no such host": Case(
        "features download out --url http://nowhere.invalid/a.zip",
        "//nowhere.invalid/a.zip",
        no_proxy,
    ),
    "no server": Case(
        "features download out --url http://127.0.0.1:9/a.zip",
        "//127.0.0.1",
        no_proxy,
    ),
    "no such file on the server": Case(
        "features download out",
        "there is no such file",
        server(Behaviour(status=404)),
    ),
    "file that is not given away": Case(
        "features download out",
        "the server answered 403",
        server(Behaviour(status=403)),
    ),
    "server in trouble": Case(
        "features download out",
        "the server answered 503",
        server(Behaviour(status=503)),
    ),
    "connection cut": Case(
        "features download out",
        "the connection was cut after 300 of 1,000,000 bytes",
        server(Behaviour(cut_after=300)),
        keeps="out",
    ),
    "download larger than the disk": Case(
        "features download out",
        "the download needs 1,000,000 more bytes and 10 are free",
        lambda world: [
            server(Behaviour())(world),
            world.monkeypatch.setattr(
                shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(20, 10, 10)
            ),
        ],
    ),
    "no project of W&B": Case(
        "fit --run.wandb offline --run.wandb_project a/b",
        "Invalid project name 'a/b'",
    ),
    "checkpoint on W&B without a key": Case(
        "test --ckpt_path wandb:somebody/few-shot/tiny:best",
        "somebody/few-shot/tiny",
        environment={},
    ),
    "name of an artifact that lacks a part": Case(
        "test --ckpt_path wandb:few-shot/tiny:best",
        "few-shot/tiny",
    ),
    "artifact that is no checkpoint": Case(
        "test --ckpt_path wandb:somebody/few-shot/tiny:best",
        "somebody/few-shot/tiny",
        lambda world: world.monkeypatch.setattr("wandb.Api", EmptyArtifact),
    ),
    "download over features": Case(
        "features download data",
        HELD,
        data,
    ),
}

SECTIONS = {
    "Feature files": FEATURE_FILES,
    "Importers": IMPORTERS,
    "Configuration and flags": CONFIGURATION,
    "Checkpoints": CHECKPOINTS,
    "Paths and disk": DISK,
    "Devices": DEVICES,
    "Optional packages": PACKAGES,
    "Network": NETWORK,
}
