"""Features by name, and folders of the same name."""

from pathlib import Path

import pytest

from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.roots import SYNTHETIC, features_folder
from leo_lightning.data.splits import save_splits
from leo_lightning.data.synthetic import synthesize


@pytest.fixture
def namesake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of features in the working directory, with a name that means others."""
    monkeypatch.chdir(tmp_path)
    save_splits([("test", synthesize()["val"])], Path(SYNTHETIC))


@pytest.mark.usefixtures("namesake")
@pytest.mark.parametrize("root", [f"./{SYNTHETIC}", Path(SYNTHETIC)])
def test_a_folder_with_the_name_can_be_meant(root: str | Path):
    """Catches a folder that nothing can reach, and a record of it that means something else."""
    data = EpisodeDataModule(root)
    again = EpisodeDataModule(**data.hparams)
    assert data.stored("test").num_classes == again.stored("test").num_classes == 16


def test_another_folder_of_the_name_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a name that a folder of drawings or runs takes away."""
    monkeypatch.chdir(tmp_path)
    Path(SYNTHETIC).mkdir()
    assert features_folder(SYNTHETIC) is None


@pytest.mark.usefixtures("namesake")
def test_no_root_means_synthetic_features():
    """Catches a checkpoint of an earlier release, which recorded null, evaluated on other features."""
    assert EpisodeDataModule(None).stored("test").provenance["dataset"] == "synthetic"
    assert EpisodeDataModule(None).hparams["root"] is None
