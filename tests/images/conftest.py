"""Images and a backbone that many tests read."""

from pathlib import Path

import pytest

from leo_lightning.images.backbones.backbone import Backbone
from tests.images.backbones.networks import conv4
from tests.images.pictures import tree


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in three splits; tests that change them copy them first."""
    return tree(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """A small backbone with random weights; no test changes it."""
    return conv4(1)
