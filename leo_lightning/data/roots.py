"""Where features lie: in a folder of yours, inside the package, or nowhere."""

from pathlib import Path

from leo_lightning.common.errors import InputError
from leo_lightning.data.arrays import check_root
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.row_file import RowFile
from leo_lightning.data.splits import load_splits, present_splits, split_path, unchanged
from leo_lightning.data.synthetic import synthesize

OMNIGLOT, SYNTHETIC = "omniglot", "synthetic"
SHIPPED = {OMNIGLOT: Path(__file__).parent / "omniglot"}
"""Folders of features inside the package: real drawings; its README.md says whose and how made."""


def features_folder(root: str | Path | None) -> Path | None:
    """Return the folder of features that `root` names; None for synthetic features.

    A string may be a name; a Path is always a folder. None means synthetic features, since checkpoints of
    earlier releases recorded that.

    Raises:
        InputError: `root` is a name, and a folder of features has the same name.
    """
    if root is None:
        return None
    if root not in (OMNIGLOT, SYNTHETIC):
        return Path(root)
    if present_splits(Path(root)):
        raise InputError(
            f"data.root: {root} names features that come with leo-lightning, but this folder has features "
            f"of that name, too; write ./{root} for these, or rename the folder"
        )
    return SHIPPED.get(str(root))


def open_splits(root: Path | None, in_memory: bool) -> tuple[dict[str, FeatureBank], dict[str, RowFile]]:
    """Return the splits of a folder, or synthetic ones, and the files to read rows from unless `in_memory`.

    Raises:
        InputError: there are none, they are damaged, or they were replaced meanwhile.
    """
    if root is None:
        return synthesize(), {}
    check_root(root)
    with unchanged(root):
        banks = load_splits(root)
        if in_memory:
            return banks, {}
        return banks, {
            split: RowFile(split_path(root, split), bank.embeddings) for split, bank in banks.items()
        }
