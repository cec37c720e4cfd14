"""Batches of training images: functions of their number."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from leo_lightning.commands.pretrain.batches import TrainingImages, WholeSplit, _seeded
from leo_lightning.common.errors import InputError
from leo_lightning.data.loader import StreamLoader
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.folder import ImageSplit, find_splits
from tests.commands.pretrain.pictures import SIZE, tree

GRAY = Recipe("", channels=1, image_size=SIZE, resize=SIZE, mean=(0.5,), std=(0.5,))
AUGMENT = [v2.RandomRotation([-20, 20]), v2.RandomCrop(SIZE, padding=2)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSplit:
    return find_splits(tree(tmp_path_factory.mktemp("images")))["train"]


def stream(images: ImageSplit, seed: int = 0, **options: int) -> TrainingImages:
    return TrainingImages(images, GRAY, 10, augment=AUGMENT, seed=seed, **options)


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order(images: ImageSplit):
    """Catches sampling with replacement, and one order for all epochs."""
    training = stream(images)
    assert training.batches == 7  # of 72 images, the last two left out
    epochs = [torch.cat([training.batch(7 * e + i).rows for i in range(7)]) for e in range(2)]
    assert all(len(set(rows.tolist())) == 70 for rows in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_labels_belong_to_images(images: ImageSplit):
    """Catches labels in the order of the split beside images in the order of the epoch."""
    batch = stream(images).batch(3)
    assert batch.labels.tolist() == images.labels[batch.rows.numpy()].tolist()
    plain = TrainingImages(images, GRAY, 10).batch(3)
    for picture, row in zip(plain.images, plain.rows, strict=True):
        np.testing.assert_array_equal(picture[0].numpy(), np.asarray(Image.open(images.path(int(row)))))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_is_a_function_of_its_number(images: ImageSplit, workers: int):
    """Catches augmentation that depends on a generator's state: other batches after a resume."""
    loader = StreamLoader(stream(images), workers, position=lambda: 5)
    batches = [batch for _, batch in zip(range(4), loader, strict=False)]
    for number, batch in enumerate(batches, start=5):
        expected = stream(images).batch(number)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)


def test_seed_and_epoch_change_the_augmentation(images: ImageSplit):
    """Catches the same crop of an image in every epoch."""
    training = stream(images)
    row = int(training.batch(0).rows[0])
    seen = {training._augmented(epoch, row).numpy().tobytes() for epoch in range(5)}
    other = stream(images, seed=1)._augmented(0, row).numpy().tobytes()
    assert len(seen) == 5
    assert other not in seen


def test_other_generators_are_restored(images: ImageSplit):
    """Catches dropout that repeats itself, because loading an image sets the seed of the main process."""
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    stream(images).batch(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    state = random.getstate()  # not before: beartype takes numbers from it to check a list
    with _seeded(7):
        drawn = random.random()
    assert random.getstate() == state
    assert drawn == random.Random(7).random()


def test_processes_share_an_epoch(images: ImageSplit):
    """Catches processes that all see the same images."""
    parts = [stream(images, rank=rank, world=2) for rank in range(2)]
    rows = [part.batch(number).rows.tolist() for part in parts for number in range(part.batches)]
    assert parts[0].batches == 3
    assert len({row for batch in rows for row in batch}) == 60


def test_a_whole_split_in_order(images: ImageSplit):
    """Catches a last short batch that is lost, or counted twice by two processes."""
    parts = [WholeSplit(images, GRAY, 10, rank, 2) for rank in range(2)]
    rows = [batch.rows.tolist() for part in parts for batch in part]
    assert [len(part) for part in rows] == [10] * 4 + [10] * 3 + [2]
    assert sorted(row for batch in rows for row in batch) == list(range(72))


@pytest.mark.parametrize(
    ("augment", "message"),
    [([v2.RandomCrop(8)], r"turns an image into \(1, 8, 8\)"), ([np.asarray], "turns an image into ndarray")],
)
def test_augmentation_of_another_size_is_refused(images: ImageSplit, augment: list, message: str):
    """Catches torch's message about tensors that cannot be stacked."""
    with pytest.raises(InputError, match=message):
        TrainingImages(images, GRAY, 10, augment=augment).batch(0)


def test_float_images_are_scaled(images: ImageSplit):
    """Catches black images, because values in [0, 1] were cut to whole numbers."""
    scale = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    scaled = TrainingImages(images, GRAY, 10, augment=[scale]).batch(0).images
    assert torch.equal(scaled, TrainingImages(images, GRAY, 10).batch(0).images)


def test_too_few_images_for_a_batch(images: ImageSplit):
    """Catches a training without steps."""
    with pytest.raises(InputError, match="72 images are fewer than a batch of 100"):
        TrainingImages(images, GRAY, 100)
