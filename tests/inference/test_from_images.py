"""From a folder of images to predictions on images of new classes."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from leo_lightning.data.splits import load_split
from leo_lightning.images.backbones.weights import read_backbone
from leo_lightning.images.extraction.embedder import Embedder
from tests.commands.pretrain.pictures import draw, tree
from tests.commands.pretrain.tiny_pretraining import CONV4, SMALL
from tests.tiny_run import TINY, folders, main, rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features of a backbone pre-trained on them, and a LEO trained on these."""
    root = tmp_path_factory.mktemp("world")
    images = tree(root / "images", train=6, val=5, images=16)
    for number in range(5):
        draw(images / "test" / f"test{number}", 16, 700 + number)
    places = [f"--data.root={images}", f"--run.root={root / 'runs'}", "--run.name=backbone"]
    assert main(["pretrain", "fit", *places, *CONV4, *SMALL, "--trainer.max_epochs=3"]) == 0
    best = folders(root / "runs", "backbone")[0] / "checkpoints" / "best.ckpt"
    words = ["extract", "--images", str(images), "--weights", str(best), "--out", str(root / "features")]
    assert main(["features", *words]) == 0
    words = [*TINY, "--data.query=3", f"--data.root={root / 'features'}", f"--run.root={root / 'runs'}"]
    assert main(["fit", *words, "--run.name=leo", "--config=configs/leo.yaml"]) == 0
    return root


@pytest.fixture
def checkpoint(world: Path) -> Path:
    return folders(world / "runs", "leo")[0] / "checkpoints" / "last.ckpt"


def classify(checkpoint: Path, out: Path, support: Path, query: Path, *flags: str) -> int:
    words = [f"--ckpt_path={checkpoint}", f"--out={out}", f"--support={support}", f"--query={query}"]
    return main(["classify", *words, *flags])


def divide(images: Path, root: Path) -> tuple[Path, Path]:
    """Support with unequal shots, and queries, of the test classes."""
    for number, folder in enumerate(sorted((images / "test").iterdir())):
        for place, path in enumerate(sorted(folder.iterdir())):
            kind = "support" if place <= number else "query"
            (root / kind / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / kind / folder.name)
    return root / "support", root / "query"


def test_images_are_embedded_as_the_features_were(
    world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """Catches another backbone, size or normalisation for new images than for features."""
    support, query = divide(world / "images", tmp_path)
    assert classify(checkpoint, tmp_path / "a.csv", support, query) == 0
    bank = load_split(world / "features", "test")
    assert bank.image_names is not None
    assert bank.provenance["backbone"] == "conv-4"
    labels = np.array([bank.class_names[label] for label in bank.labels])
    chosen = np.array([(support / name).exists() for name in bank.image_names])
    for name, which in (("support", chosen), ("query", ~chosen)):
        np.savez(tmp_path / f"{name}.npz", embeddings=bank.embeddings.numpy()[which], labels=labels[which])
    assert classify(checkpoint, tmp_path / "b.csv", tmp_path / "support.npz", tmp_path / "query.npz") == 0
    by_images, by_features = rows(tmp_path / "a.csv"), rows(tmp_path / "b.csv")
    assert len(by_images) == 15 + 14 + 13 + 12 + 11
    assert [line["predicted"] for line in by_images] == [line["predicted"] for line in by_features]
    for one, other in zip(by_images, by_features, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)
    accuracies = [line for line in capfd.readouterr().out.splitlines() if line.startswith("accuracy")]
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1]


def test_images_without_labels(world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches an accuracy of images that nobody labelled."""
    support, query = divide(world / "images", tmp_path)
    folder = query / "test3"
    assert classify(checkpoint, tmp_path / "a.csv", support, folder) == 0
    assert [line["image"] for line in rows(tmp_path / "a.csv")] == sorted(
        path.name for path in folder.iterdir()
    )
    assert "class" not in rows(tmp_path / "a.csv")[0]
    assert "accuracy" not in capfd.readouterr().out
    one = next(folder.iterdir())
    assert classify(checkpoint, tmp_path / "b.csv", support, one) == 0
    assert [line["image"] for line in rows(tmp_path / "b.csv")] == [one.name]


def test_the_backbone_must_be_that_of_the_training(
    world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """Catches images embedded by a network that the model has never seen the features of."""
    support, query = divide(world / "images", tmp_path)
    alone = tmp_path / "alone.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["data"]["init_args"]["root"] = "features/of/another/machine"
    torch.save(content, alone)
    assert classify(alone, tmp_path / "a.csv", support, query) == 2
    assert (
        "the backbone of the training is not known; name the backbone.safetensors" in capfd.readouterr().err
    )
    backbone = world / "features" / "backbone.safetensors"
    assert classify(alone, tmp_path / "a.csv", support, query, f"--backbone={backbone}") == 0
    last = folders(world / "runs", "backbone")[0] / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    state["state_dict"]["backbone.network.0.conv.bias"] += 1
    torch.save(state, tmp_path / "other.ckpt")
    words = ["--images", str(world / "images"), "--weights", str(tmp_path / "other.ckpt")]
    assert main(["features", "extract", *words, "--out", str(tmp_path / "other")]) == 0
    other = tmp_path / "other" / "backbone.safetensors"
    capfd.readouterr()
    assert classify(checkpoint, tmp_path / "b.csv", support, query, f"--backbone={other}") == 2
    assert "is not the backbone that the model was trained with" in capfd.readouterr().err


def test_export_from_images(world: Path, checkpoint: Path, tmp_path: Path):
    """Catches an exported classifier of other embeddings than those of the backbone beside the features."""
    support, query = divide(world / "images", tmp_path)
    backbone = world / "features" / "backbone.safetensors"
    words = ["--ckpt_path", str(checkpoint), "--support", str(support), "--out", str(tmp_path / "a.onnx")]
    assert main(["export", *words]) == 0
    assert classify(checkpoint, tmp_path / "a.csv", support, query) == 0
    paths = sorted(path for path in query.rglob("*.png"))
    embeddings = Embedder(read_backbone(backbone)).embed(paths).numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    (probabilities,) = session.run(["probabilities"], {"embeddings": embeddings})
    names = sorted(path.name for path in support.iterdir())
    predicted = [names[best] for best in np.asarray(probabilities).argmax(1)]
    assert predicted == [line["predicted"] for line in rows(tmp_path / "a.csv")]


def test_export_from_pixels(world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches a model that answers another thing than `classify`, or the flag that does nothing."""
    support, query = divide(world / "images", tmp_path)
    words = ["--support", str(support), "--out", str(tmp_path / "a.onnx"), "--pixels"]
    assert main(["export", "--ckpt_path", str(checkpoint), *words]) == 0
    assert "center crop of 16 × 16" in capfd.readouterr().out
    assert classify(checkpoint, tmp_path / "a.csv", support, query) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    for line in rows(tmp_path / "a.csv"):
        image = np.asarray(Image.open(query / line["image"]).convert("RGB"))
        probabilities, name = session.run(["probabilities", "class"], {"image": image})
        assert name == [line["predicted"]]
        assert np.max(probabilities) == pytest.approx(float(line["probability"]), abs=1e-4)
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["data"]["init_args"]["root"] = "features/of/another/machine"
    torch.save(content, tmp_path / "alone.ckpt")
    np.savez(tmp_path / "s.npz", embeddings=np.eye(4, dtype=np.float32), labels=np.array(list("abcd")))
    words[1] = str(tmp_path / "s.npz")
    assert main(["export", "--ckpt_path", str(tmp_path / "alone.ckpt"), *words]) == 2
    assert "--pixels needs the backbone of the training; name the backbone" in capfd.readouterr().err
