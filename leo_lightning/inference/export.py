"""Classifiers of new classes as files that work without this package.

The safetensors file holds `weight` (N, E), `bias` (N) and, if a mean is subtracted, `mean` (E), and in its
header the names of the classes and `normalize`. With a batch x of embeddings (batch, E) in NumPy:

    if normalize == "center_l2":
        x = x - mean
    if normalize != "none":
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    logits = x @ weight.T + bias
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)

The ONNX model computes the same: `embeddings` (batch, E) to `logits` and `probabilities` (batch, N).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray
    from onnx import ModelProto

    from leo_lightning.inference.adapted_classifier import AdaptedClassifier
    from leo_lightning.inference.trained_model import TrainedModel

FORMAT, FORMAT_VERSION = "leo-lightning classifier", "1"
OPSET, IR_VERSION = 13, 7
"""Versions of ONNX 1.8 (2020), the first with a softmax over a single axis."""
EPSILON = 1e-12
"""Smallest length to divide embeddings by, as in torch."""


def export(
    adapted: "AdaptedClassifier", class_names: Sequence[str], trained: "TrainedModel | None", path: Path
) -> None:
    """Write a linear classifier; of a sampling learner, the mean classifier. The file is written whole.

    Args:
        adapted: the classifier.
        class_names: names of its classes.
        trained: the model that it was adapted from; None for a method without training.
        path: the file, .onnx or .safetensors.

    Raises:
        InputError: the classifier is not linear, or the file has another ending.
    """
    from leo_lightning.common.files import whole_file

    check_kind(path)
    arrays, header = parts_of(adapted, class_names, trained)
    if path.suffix == ".onnx":
        content = classifier_model(arrays, header).SerializeToString()
    else:
        content = _safetensors(arrays, header)
    with whole_file(path) as part:
        part.write_bytes(content)


def parts_of(
    adapted: "AdaptedClassifier", class_names: Sequence[str], trained: "TrainedModel | None"
) -> "tuple[dict[str, ndarray], dict[str, str]]":
    """Return the arrays of a linear classifier by name, and what is written beside them.

    Raises:
        InputError: the classifier is not linear.
    """
    linear, (kind, mean) = adapted.linear(), adapted.normalization
    weight = linear.weight[0]
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias[0]
    parts = {"weight": weight, "bias": bias} | ({} if mean is None else {"mean": mean})
    arrays = {name: part.detach().cpu().float().contiguous().numpy() for name, part in parts.items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": json.dumps(list(class_names)),
        "normalize": kind,
        "learner": type(adapted.learner).__name__,
    }
    if trained is None:
        header["provenance"] = json.dumps(adapted.support.provenance)
    else:
        header |= {"provenance": json.dumps(trained.record.provenance), "checkpoint_sha256": trained.sha256}
    return arrays, header


def check_kind(path: Path) -> None:
    """Check the ending of the file to write.

    Raises:
        InputError: it is neither .onnx nor .safetensors.
    """
    if path.suffix not in (".onnx", ".safetensors"):
        raise InputError(f"{path}: must end in .onnx or .safetensors")


def _safetensors(arrays: "dict[str, ndarray]", header: dict[str, str]) -> bytes:
    from safetensors.numpy import save

    return save(arrays, header)


def classifier_model(arrays: "dict[str, ndarray]", header: dict[str, str]) -> "ModelProto":
    """Return the classifier as an ONNX model."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper

    N, E = arrays["weight"].shape
    nodes, rows = [], "embeddings"

    def then(op: str, *inputs: str, to: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [to], **attributes))
        return to

    if "mean" in arrays:
        rows = then("Sub", rows, "mean", to="centred")
    if header["normalize"] != "none":
        arrays = arrays | {"epsilon": np.array(EPSILON, np.float32)}
        length = then("ReduceL2", rows, to="length", axes=[1], keepdims=1)
        rows = then("Div", rows, then("Max", length, "epsilon", to="divisor"), to="normalized")
    then("Gemm", rows, "weight", "bias", to="logits", transB=1)
    then("Softmax", "logits", to="probabilities", axis=1)
    batch = {"embeddings": E, "logits": N, "probabilities": N}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in batch.items()
    }
    graph = helper.make_graph(
        nodes,
        "classifier",
        [values["embeddings"]],
        [values["logits"], values["probabilities"]],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="leo-lightning",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, header)
    checker.check_model(model, full_check=True)
    return model
