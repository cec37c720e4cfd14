"""`python -m leo_lightning export`: a classifier of new classes as a file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.arguments import ArgumentParser, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    return exit_code(lambda: _export(_parser().parse_args(argv)), "interrupted; nothing was written")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning export",
        description="Learn new classes from a few labelled embeddings, and write the classifier as a file "
        "that needs nothing of this package: ONNX, or its weights as safetensors.",
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a method for classes")
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
    return parser


def _export(arguments: argparse.Namespace) -> None:
    from leo_lightning.common.files import check_place
    from leo_lightning.inference.export import check_kind, export

    check_kind(arguments.out)
    check_place(arguments.out)
    from leo_lightning.common.quiet import quiet
    from leo_lightning.data.new_classes import support_of
    from leo_lightning.inference.new_images import read_any
    from leo_lightning.inference.trained_model import TrainedModel
    from leo_lightning.runs.folder import folder_of
    from leo_lightning.runs.implied_flags import backbone_of

    quiet()
    trained = TrainedModel.load(arguments.ckpt_path)
    provenance = trained.record.provenance
    folder = folder_of(arguments.ckpt_path)
    backbone = arguments.backbone or (folder and backbone_of(folder))
    support = support_of(read_any(arguments.support, True, backbone, provenance))
    export(trained.adapt(support), support.class_names, trained, arguments.out)
    print(
        f"{arguments.out}: {support.num_classes} classes by {len(support)} examples, embeddings of size "
        f"{support.embedding_size}, normalize {trained.record.normalization.kind}"
    )
