"""Names of features that need no files of your own."""

from pathlib import Path

from leo_lightning.common.errors import InputError
from leo_lightning.data.splits import present_splits

SYNTHETIC = "synthetic"


def features_folder(root: str | Path | None) -> Path | None:
    """Return the folder of features that `root` names; None for synthetic features.

    A string may be a name; a Path is always a folder. None means synthetic features, since checkpoints of
    earlier releases recorded that.

    Raises:
        InputError: `root` is a name, and a folder of features has the same name.
    """
    if root is None:
        return None
    if root != SYNTHETIC:
        return Path(root)
    if present_splits(Path(root)):
        raise InputError(
            f"data.root: {root} names features that come with leo-lightning, but this folder has features "
            f"of that name, too; write ./{root} for these, or rename the folder"
        )
    return None
