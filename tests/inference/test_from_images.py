"""From a folder of images to predictions on images of new classes."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

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
        "the backbone of the training is not known, or no longer there, and images need it"
        in capfd.readouterr().err
    )
    backbone = world / "features" / "backbone.safetensors"
    assert classify(alone, tmp_path / "a.csv", support, query, f"--weights={backbone}") == 0
    last = folders(world / "runs", "backbone")[0] / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    state["state_dict"]["backbone.network.0.conv.bias"] += 1
    torch.save(state, tmp_path / "other.ckpt")
    words = ["--images", str(world / "images"), "--weights", str(tmp_path / "other.ckpt")]
    assert main(["features", "extract", *words, "--out", str(tmp_path / "other")]) == 0
    other = tmp_path / "other" / "backbone.safetensors"
    capfd.readouterr()
    assert classify(checkpoint, tmp_path / "b.csv", support, query, f"--weights={other}") == 2
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


def untrained(world: Path, out: Path | str, support: Path, query: Path, *flags: str) -> int:
    """Classify by a method that needs no training."""
    weights = world / "features" / "backbone.safetensors"
    words = [f"--weights={weights}", f"--out={out}", f"--support={support}", f"--query={query}"]
    return main(["classify", *words, *flags])


def test_no_training_is_needed(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches a method that does not see the embeddings of the backbone, or needs a checkpoint."""
    support, query = divide(world / "images", tmp_path)
    assert untrained(world, tmp_path / "a.csv", support, query, "--method=nearest-centroid") == 0
    embedder = Embedder(read_backbone(world / "features" / "backbone.safetensors"))
    unit = torch.nn.functional.normalize
    centroids = []
    for folder in sorted(support.iterdir()):
        centroids.append(unit(embedder.embed(sorted(folder.iterdir())), dim=1).mean(0))
    rows_of = [unit(embedder.embed([query / line["image"]]), dim=1) for line in rows(tmp_path / "a.csv")]
    nearest = torch.cdist(torch.cat(rows_of), torch.stack(centroids)).argmin(1)
    names = sorted(path.name for path in support.iterdir())
    assert [line["predicted"] for line in rows(tmp_path / "a.csv")] == [names[number] for number in nearest]
    said = capfd.readouterr().out
    assert "test0/" in said  # a table of the first ones
    assert "and 55 more" in said
    assert "accuracy" in said


def test_auto_says_what_it_chose_from(
    world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture
):
    """Catches a choice that is not told, leaves out the trained model, or is made of one example each."""
    support, query = divide(world / "images", tmp_path)
    assert classify(checkpoint, tmp_path / "a.csv", support, query, "--method=auto") == 0
    said = capfd.readouterr().out
    estimates = [line.split("  ")[1] for line in said.splitlines() if "95% interval" in line and "  " in line]
    assert [name for name in estimates if name] == [
        "LEO", "logistic regression", "CL2N", "nearest centroid", "linear SVM",
    ]  # fmt: skip
    assert " % of 14, 95% interval" in said  # 2 + 3 + 4 + 5; the class with one example is not asked
    assert "1 class has one example only, which cannot be held out" in said
    for path in sorted((support / "test0").iterdir())[:1]:
        shutil.copy(path, path.with_name("again.png"))
    assert classify(checkpoint, tmp_path / "a.csv", support, query, "--method=auto") == 0
    assert (
        "with fewer than 5 examples of a class, these numbers are usually too low" in capfd.readouterr().out
    )
    for folder in support.iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    assert untrained(world, tmp_path / "b.csv", support, query) == 0
    said = capfd.readouterr().out
    assert "method  logistic regression; with one example of each class there is nothing to choose by" in said


def test_files_that_are_no_images(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches bad files that are reported one by one, or are missing from the table, or stop the command."""
    support, query = divide(world / "images", tmp_path)
    (query / "test1" / "a_cut.png").write_bytes((query / "test1" / "02.png").read_bytes()[:60])
    (query / "test3" / "empty.jpg").touch()
    (query / "test3" / "phone.HEIC").touch()
    (query / "test3" / "notes.txt").touch()
    assert untrained(world, tmp_path / "a.csv", support, query) == 2
    captured = capfd.readouterr()
    assert "cannot be read as images: 'test1/a_cut.png', 'test3/empty.jpg'; remove them, or" in captured.err
    assert "--on-error skip" in captured.err
    assert not (tmp_path / "a.csv").exists()
    assert untrained(world, tmp_path / "a.csv", support, query, "--on-error=skip") == 0
    said = capfd.readouterr().out
    assert "ignored, not images: 1 .txt, 1 .heic; save .heic as JPEG to use them" in said
    assert "2 queries could not be read" in said
    table = rows(tmp_path / "a.csv")
    assert [line["image"] for line in table] == sorted(line["image"] for line in table)
    bad = [line for line in table if line["status"] == "unreadable"]
    assert [line["image"] for line in bad] == ["test1/a_cut.png", "test3/empty.jpg"]
    assert [line["class"] for line in bad] == ["test1", "test3"]
    assert {line[name] for line in bad for name in ("predicted", "probability", "distance")} == {""}
    assert len(table) == 65 + 2


def test_embeddings_are_kept(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches images that are embedded again, a changed image that is not, and another answer then."""
    support, query = divide(world / "images", tmp_path)
    embedded: list[int] = []
    views = Embedder.embed_views
    monkeypatch.setattr(
        Embedder, "embed_views", lambda self, images: embedded.append(len(images)) or views(self, images)
    )
    cache = f"--cache={tmp_path / 'cache'}"
    assert untrained(world, tmp_path / "a.csv", support, query, cache) == 0
    assert sum(embedded) == 15 + 65
    assert untrained(world, tmp_path / "b.csv", support, query, cache) == 0
    assert sum(embedded) == 15 + 65
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    shutil.copy(query / "test2" / "05.png", query / "test0" / "05.png")
    (query / "test0" / "99.png").write_bytes((world / "images" / "train" / "train0" / "00.png").read_bytes())
    assert untrained(world, tmp_path / "c.csv", support, query, cache) == 0
    assert sum(embedded) == 15 + 65 + 1
    assert untrained(world, tmp_path / "c.csv", support, query, "--cache=none") == 0
    assert sum(embedded) == 2 * (15 + 66)


def test_a_pipe_and_a_single_photo(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches words in the middle of a table that another program reads, and a table for one photo."""
    support, query = divide(world / "images", tmp_path)
    assert untrained(world, "-", support, query) == 0
    captured = capfd.readouterr()
    table = list(csv.DictReader(captured.out.splitlines()))
    assert len(table) == 65
    assert "accuracy" in captured.err
    photo = query / "test4" / "15.png"
    assert main(
        ["classify", f"--weights={world / 'features' / 'backbone.safetensors'}", f"--support={support}",
         f"--query={photo}"]
    ) == 0  # fmt: skip
    (answer,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("15.png: ")]
    assert re.fullmatch(r"15.png: (test\d) \(\1 \d+ %, test\d \d+ %, test\d \d+ %\)", answer)


def test_none_of_these(world: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    """Catches a rejected query that keeps its answer, a threshold of other scores, and a wrong AUROC."""
    support, query = divide(world / "images", tmp_path)
    shutil.rmtree(support / "test0")
    flags = ["--reject=10%", f"--calibrate={world / 'features' / 'val.safetensors'}"]
    for by in ("distance", "entropy"):
        assert classify(checkpoint, tmp_path / "a.csv", support, query, *flags, f"--reject-by={by}") == 0
        said, table = capfd.readouterr().out, rows(tmp_path / "a.csv")
        limit = float(re.search(rf"none of these: {by} above ([\d.]+)", said)[1])  # pyright: ignore
        for line in table:
            if abs(float(line[by]) - limit) > 2e-6:
                assert (line["status"] == "none of these") == (float(line[by]) > limit)
            assert (line["predicted"] == "") == (line["status"] == "none of these")
            assert float(line["probability"]) > 0
        unknown = [line["class"] == "test0" for line in table]
        score = roc_auc_score(unknown, [float(line[by]) for line in table])
        assert (
            f"{by} tells these apart with an AUROC of {score:.3f}" in said or f"{by} with {score:.3f}" in said
        )
        rejected = sum(line["status"] == "none of these" for line in table)
        assert f"rejected {rejected} of 65 queries" in said


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
    assert (
        "the backbone of the training is not known, or no longer there, and images need it"
        in capfd.readouterr().err
    )
