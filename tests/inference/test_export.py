"""Classifiers as files: what others compute with them is what the classifier says."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy import ndarray
from safetensors import safe_open

from leo_lightning import LEOClassifier
from leo_lightning.inference import export
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.matching import MatchingNetworks
from leo_lightning.learners.prototypical import PrototypicalNetworks
from tests.inference.test_leo_classifier import E, blobs, leo, save
from tests.tiny_run import main

KINDS = ("none", "l2", "center_l2")
MEAN = torch.linspace(-1, 1, E)


def fitted(folder: Path, learner: Any = None, kind: str = "center_l2") -> LEOClassifier:
    path = save(folder / "x.ckpt", learner or leo(), kind, MEAN if kind == "center_l2" else None)
    return LEOClassifier(path).fit(*blobs(3))


def run_onnx(path: Path, x: ndarray) -> tuple[ndarray, ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["embeddings"]
    assert [each.name for each in session.get_outputs()] == ["logits", "probabilities"]
    logits, probabilities = session.run(None, {"embeddings": x})
    return np.asarray(logits), np.asarray(probabilities)


def run_numpy(path: Path, x: ndarray) -> ndarray:
    """The formula of the documentation, as it stands there."""
    with safe_open(path, framework="np") as file:
        names: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}
        names |= {"normalize": file.metadata()["normalize"], "x": x, "np": np}
    _, _, formula = str(export.__doc__).partition("in NumPy:\n")
    exec(textwrap.dedent(formula.partition("The ONNX")[0]), names)
    return names["probabilities"]


def queries() -> ndarray:
    """Overlapping classes, one row that cannot have length 1, and one that is long."""
    query, _ = blobs(30, seed=1)
    query[0], query[1] = 0, 1e6 * query[1]
    return query


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "learner",
    [leo(), leo(kind=LEO), NearestCentroid(), PrototypicalNetworks(E, temperature=1.0)],
    ids=["LEO", "LEO without bias", "nearest centroid", "prototypes"],
)
def test_files_say_what_the_classifier_says(learner: Any, kind: str, tmp_path: Path):
    """Catches weights that are transposed, a bias or a mean that is lost, and a division by length 0."""
    made = fitted(tmp_path, learner, kind)
    x = queries()
    if kind == "none":
        x = np.delete(x, 1, axis=0)  # its logits are too large for single precision
    expected = made.predict_proba(x)
    assert (expected.max(1) < 0.99).sum() > 2
    for suffix in ("onnx", "safetensors"):
        made.export(tmp_path / f"c.{suffix}")
    logits, probabilities = run_onnx(tmp_path / "c.onnx", x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(logits - logits[:, :1], np.log(expected / expected[:, :1]), atol=1e-3)
    np.testing.assert_allclose(run_numpy(tmp_path / "c.safetensors", x), expected, atol=1e-6)
    for size in (1, 7):
        np.testing.assert_allclose(run_onnx(tmp_path / "c.onnx", x[:size])[1], expected[:size], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_files_say_what_they_are(kind: str, tmp_path: Path):
    """Catches classes in another order or without names, and a file that nobody can trace back."""
    made = fitted(tmp_path, kind=kind)
    made.export(tmp_path / "c.onnx")
    made.export(str(tmp_path / "c.safetensors"))
    model = onnx.load(tmp_path / "c.onnx")
    with safe_open(tmp_path / "c.safetensors", framework="np") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    assert {prop.key: prop.value for prop in model.metadata_props} == header
    assert json.loads(header["class_names"]) == made.classes_.tolist() == ["ant", "cow", "wolf"]
    assert json.loads(header["provenance"]) == {"backbone": "tiny"}
    digest = subprocess.run(["sha256sum", tmp_path / "x.ckpt"], capture_output=True, text=True, check=True)
    assert header["checkpoint_sha256"] == digest.stdout.split()[0]
    assert (header["format"], header["format_version"]) == ("leo-lightning classifier", "1")
    assert (header["normalize"], header["learner"]) == (kind, "CentroidLEO")
    shapes = {"weight": (3, E), "bias": (3,)} | ({"mean": (E,)} if kind == "center_l2" else {})
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_onnx_is_for_old_runtimes_too(tmp_path: Path):
    """Catches operators or a format that only this year's runtimes know."""
    fitted(tmp_path).export(tmp_path / "c.onnx")
    model = onnx.load(tmp_path / "c.onnx")
    assert model.ir_version == 7
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 13)]
    onnx.checker.check_model(model, full_check=True)


def test_the_mean_of_a_sampled_classifier_is_exported(tmp_path: Path):
    """Catches an average of probabilities that is refused, or whose first sample is taken."""
    fitted(tmp_path, leo()).export(tmp_path / "mean.safetensors")
    made = fitted(tmp_path, leo(test_samples=4))
    made.export(tmp_path / "sampled.safetensors")
    x = queries()
    found = run_numpy(tmp_path / "sampled.safetensors", x)
    np.testing.assert_array_equal(found, run_numpy(tmp_path / "mean.safetensors", x))
    assert np.abs(found - made.predict_proba(x)).max() > 1e-4


@pytest.mark.parametrize(
    ("learner", "name", "said"),
    [
        (MatchingNetworks(E), "c.onnx", "MatchingNetworks makes a classifier that is not linear"),
        (leo(), "c.pt", "c.pt: must end in .onnx or .safetensors"),
        (leo(), "nowhere/c.onnx", "cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(learner: Any, name: str, said: str, tmp_path: Path):
    """Catches a file of something else, or a part of one."""
    made = fitted(tmp_path, learner)
    with pytest.raises(ValueError, match=said):
        made.export(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_the_command_writes_what_python_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a command with a normalisation or an order of classes of its own."""
    made = fitted(tmp_path)
    made.export(tmp_path / "python.onnx")
    x, y = blobs(3)
    np.savez(tmp_path / "s.npz", x=x, y=y)
    out = tmp_path / "command.onnx"
    arguments = ["--ckpt_path", tmp_path / "x.ckpt", "--support", tmp_path / "s.npz", "--out", out]
    assert main(["export", *map(str, arguments)]) == 0
    assert out.read_bytes() == (tmp_path / "python.onnx").read_bytes()
    said = capsys.readouterr().out
    learner = type(made.trained_.learner).__name__
    size = f"embeddings of size {E}"
    assert said == f"{out}: 3 classes by 9 examples, {learner}, {size}, normalize center_l2\n"


def test_help_is_quick():
    """Catches torch or ONNX imported at the top, which makes `--help` take seconds."""
    program = (
        "import sys, leo_lightning.commands.export as e; e._parser().format_help(); "
        "print({'torch', 'onnx', 'numpy', 'sklearn'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
