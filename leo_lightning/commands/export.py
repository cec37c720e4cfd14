"""`export`: write a classifier of new classes as a file."""

from collections.abc import Sequence
from pathlib import Path

from leo_lightning.commands.new_classes import TRAINED, add_flags, chosen_way, read_support
from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.program import called


def main(arguments: Sequence[str]) -> None:
    """Learn new classes, and write the classifier."""
    typed = _parser().parse_args(arguments)
    from leo_lightning.common.files import check_place
    from leo_lightning.common.threads import one_thread
    from leo_lightning.inference.export import check_kind, export
    from leo_lightning.inference.export_pixels import check_pixels, export_pixels

    if typed.pixels:
        check_pixels(typed.out)
    check_kind(typed.out)
    check_place(typed.out)
    new = read_support(typed, lambda line: print(f"note    {line}"))
    support = new.support
    network = new.reader.embedder.backbone if typed.pixels else None
    with one_thread():
        way = chosen_way(typed.method, new, print)
        adapted = way.fit(support)
        trained = new.trained if way.name == TRAINED else None
        if network is not None:
            export_pixels(adapted, support.class_names, trained, network, typed.out)
            print(f"images: {network.recipe.preparation}, as Pillow does it: all inside the model")
        else:
            export(adapted, support.class_names, trained, typed.out)
    print(
        f"{typed.out}: {support.num_classes} classes by {len(support)} examples, {way.title}, embeddings of "
        f"size {support.embedding_size}, normalize {adapted.normalization.kind}"
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{called()} export",
        description="Learn new classes from a few labelled examples, and write the classifier as a file "
        "that needs nothing of this package: ONNX, also with the network before it (--pixels), or weights as "
        "safetensors.",
    )
    add_flags(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="what is written: .onnx or .safetensors"
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="write the backbone and the preparation of images, too: one ONNX model from an image to a name",
    )
    return parser
