"""Classifiers of new classes with the network before them: one ONNX model from pixels to the name of a class.

It takes `image`, uint8 (height, width, 3): red, green and blue of an image of any size, upright and without
transparency. It returns `logits` and `probabilities` (1, N) and `class` (1), a name. Resizing, crop,
normalization, network, layer and pooling are the backbone's; the classifier is that of `export`.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.inference.pixels_graph import IR_VERSION, OPSET, preparation

if TYPE_CHECKING:
    from onnx import ModelProto

    from leo_lightning.images.backbones.backbone import Backbone
    from leo_lightning.inference.adapted_classifier import AdaptedClassifier
    from leo_lightning.inference.trained_model import TrainedModel


def export_pixels(
    adapted: "AdaptedClassifier",
    class_names: Sequence[str],
    trained: "TrainedModel | None",
    backbone: "Backbone",
    path: Path,
) -> None:
    """Write a linear classifier behind its backbone; of a sampling learner, the mean classifier.

    Args:
        adapted: the classifier.
        class_names: names of its classes.
        trained: the model that it was adapted from; None for a method without training.
        backbone: made the embeddings of its examples.
        path: the file, .onnx. It is written whole.

    Raises:
        InputError: the classifier is not linear, the backbone averages over views, torch cannot write its
            network as ONNX, or the file has another ending.
    """
    import numpy as np
    from onnx import TensorProto, checker, compose, helper, numpy_helper, version_converter

    from leo_lightning.common.files import whole_file
    from leo_lightning.inference.export import classifier_model, parts_of

    check_pixels(path)
    recipe = backbone.recipe
    if recipe.crop != "center":
        raise InputError(
            f"{path}: the features are means over ten views (--crop multiview), and a model from pixels sees "
            "one; extract them with --crop center, or leave out --pixels"
        )
    own = _own(backbone)
    made = adapted.support.provenance if trained is None else trained.record.provenance
    if changed := [key for key, value in own.items() if made.get(key, value) != value]:
        raise InputError(
            f"{path}: the backbone is not the one that made the features (different "
            f"{changed[0].partition('_')[0]}); name that one with --weights"
        )
    arrays, header = parts_of(adapted, class_names, trained)
    head = version_converter.convert_version(classifier_model(arrays, header), OPSET)
    head.ir_version = IR_VERSION
    model = preparation(recipe)
    for name, part in (("pixels", _network(backbone)), ("embeddings", head)):
        part = compose.add_prefix(part, f"from_{name}/", rename_inputs=False, rename_outputs=False)
        model = compose.merge_models(model, part, io_map=[(name, name)])
    names = np.array(class_names, object)
    model.graph.initializer.append(numpy_helper.from_array(names, "class_names"))
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["number"], axis=1, keepdims=0))
    model.graph.node.append(helper.make_node("Gather", ["class_names", "number"], ["class"]))
    model.graph.output.append(helper.make_tensor_value_info("class", TensorProto.STRING, ["batch"]))
    helper.set_model_props(model, header | own | {"preparation": recipe.preparation})
    model.producer_name = "leo-lightning"
    checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    with whole_file(path) as file:
        file.write_bytes(content)


def check_pixels(path: Path) -> None:
    """Check the ending of the file to write.

    Raises:
        InputError: it is not .onnx.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: must end in .onnx: a model from pixels holds a network")


def _own(backbone: "Backbone") -> dict[str, str]:
    """Return what the record of features says of their backbone."""
    from leo_lightning.images.backbones.weights import digest

    return {"weights_sha256": digest(backbone), "recipe": backbone.recipe.dumps()}


def _network(backbone: "Backbone") -> "ModelProto":
    """Return the model from `pixels`, uint8 (1, channels, S, S), to `embeddings` (1, E)."""
    import torch

    recipe = backbone.recipe
    network: Any = copy.deepcopy(backbone).eval().cpu()
    network = network.to(memory_format=torch.contiguous_format)  # the embedder has changed it
    pixels = torch.zeros(1, recipe.channels, recipe.image_size, recipe.image_size, dtype=torch.uint8)
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["embeddings"]}
    try:
        program = torch.onnx.export(
            network, (pixels,), **names, opset_version=OPSET, verbose=False, dynamo=True
        )
    except Exception as error:  # a network may do what no graph can hold, and torch says so in many ways
        last = error.__cause__ or error
        raise InputError(
            f"backbone {recipe.backbone} cannot be written as ONNX ({one_line(last):.120}); leave out "
            "--pixels"
        ) from None
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    return model
