"""Views against torchvision."""

import pytest
import torch
from torchvision.transforms import functional

from leo_lightning.images.extraction.views import views
from tests.images.backbones.networks import images


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 12), (13, 8), (15, 21)])
def test_views_are_torchvisions(height: int, width: int):
    """Catches a corner twice, mirror images left out, and a middle that is off by one."""
    image = images(1, 21)[0, :, :height, :width]
    assert torch.equal(views(image, 8, "multiview"), torch.stack(functional.ten_crop(image, [8, 8])))
    assert torch.equal(views(image, 8, "center"), functional.center_crop(image, [8, 8])[None])
