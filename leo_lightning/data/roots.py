"""Names of features that need no files of your own."""

from pathlib import Path

from leo_lightning.common.errors import InputError
from leo_lightning.data.splits import present_splits

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
