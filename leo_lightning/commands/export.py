"""`export`: write a classifier of new classes as a file."""

from collections.abc import Sequence
from pathlib import Path

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError
from leo_lightning.common.program import called


def main(arguments: Sequence[str]) -> None:
    """Learn new classes, and write the classifier."""
    typed = _parser().parse_args(arguments)
    from leo_lightning.common.files import check_place
    from leo_lightning.data.new_classes import support_of
    from leo_lightning.images.backbones.weights import read_backbone
    from leo_lightning.inference.export import check_kind, export
    from leo_lightning.inference.export_pixels import check_pixels, export_pixels
    from leo_lightning.inference.new_images import backbone_beside, read_any
    from leo_lightning.inference.trained_model import TrainedModel

    if typed.pixels:
        check_pixels(typed.out)
    check_kind(typed.out)
    check_place(typed.out)
    trained = TrainedModel.load(typed.ckpt_path)
    backbone = typed.backbone or backbone_beside(typed.ckpt_path)
    support = support_of(read_any(typed.support, True, backbone, trained.record.provenance))
    adapted = trained.adapt(support)
    if typed.pixels:
        if backbone is None:
            raise InputError(
                f"{typed.out}: --pixels needs the backbone of the training; name the backbone.safetensors "
                "beside its features with --backbone"
            )
        network = read_backbone(backbone)
        export_pixels(adapted, support.class_names, trained, network, typed.out)
        print(f"images: {network.recipe.preparation}, as Pillow does it: all inside the model")
    else:
        export(adapted, support.class_names, trained, typed.out)
    print(
        f"{typed.out}: {support.num_classes} classes by {len(support)} examples, embeddings of size "
        f"{support.embedding_size}, normalize {trained.record.normalization.kind}"
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} export",
        description="Learn new classes from a few labelled embeddings, and write the classifier as a file "
        "that needs nothing of this package: ONNX, also with the network before it (--pixels), or weights as "
        "safetensors.",
    )
    add = parser.add_argument
    add(
        "--ckpt_path", type=Path, required=True, metavar="PATH",
        help="checkpoint of a method for classes, or a folder that LEOClassifier.save_pretrained wrote",
    )  # fmt: skip
    add(
        "--support",
        type=Path,
        required=True,
        metavar="FILE",
        help="a few labelled examples of each class: features.safetensors, npz, npy or pt, or a folder with "
        "a folder of images for each class",
    )
    add(
        "--backbone",
        type=Path,
        metavar="FILE",
        help="for images, the backbone.safetensors that made the features of the training (default: the one "
        "that lies beside these)",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="what is written: .onnx or .safetensors")
    add(
        "--pixels",
        action="store_true",
        help="write the backbone and the preparation of images, too: one ONNX model from an image to a name",
    )
    return parser
