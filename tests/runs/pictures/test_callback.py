"""Pictures in a run: when, where, and that the training takes no notice."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.crash import differences
from leo_lightning.common.errors import Interrupted
from leo_lightning.runs.pictures.album import Album
from tests.commands.figures.subjects import banks
from tests.places import ROOT
from tests.runs.loggers.wandb_file import read_back
from tests.tiny_run import TINY, folders, main, rows, tiny

DRAWN = {"codes", "inner_steps", "task_accuracies", "confusion", "learning_rates"}
ALL = DRAWN | {"hardest_tasks"}
EVERY = "--run.pictures_every=1"
HALVED = ["--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=6", "--model.lr_scheduler.gamma=0.5"]
LONG = ["--trainer.max_steps=12", *HALVED]


def taken(folder: Path) -> dict[str, bytes]:
    """Contents of the pictures by path."""
    place = folder / "pictures"
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def names(steps: list[int], kinds: set[str] = ALL) -> set[str]:
    stems = [f"{kind}/step-{step:08}" for kind in kinds for step in steps]
    tables = {f"{stem}.csv" for stem in stems}
    return tables | {f"{stem}.png" for stem in stems if not stem.startswith("hardest")}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that validates at the steps 3, 6, 9 and 12 and draws at every second time."""
    root = tmp_path_factory.mktemp("pictured")
    assert tiny(root, "--run.pictures_every=2", *LONG, command="fit") == 0
    return folders(root)[0]


def test_training_takes_no_notice(pictured: Path, tmp_path: Path):
    """Catches a random number, a mode, or a gradient that a picture changes, in the next step's weights."""
    assert tiny(tmp_path, *LONG, command="fit") == 0
    (plain,) = folders(tmp_path)
    assert not (plain / "pictures").exists()
    assert list(differences(pictured, plain)) == []


def test_pictures_are_taken_when_due(pictured: Path):
    """Catches pictures at every validation, at none, or twice at the last; and names that do not sort."""
    assert taken(pictured).keys() == names([6, 12])
    table = rows(pictured / "pictures" / "task_accuracies" / "step-00000012.csv")
    assert sum(int(row["tasks"]) for row in table) == 8
    hardest = rows(pictured / "pictures" / "hardest_tasks" / "step-00000012.csv")
    last = rows(pictured / "metrics.csv")[-1]
    mean = sum(float(row["accuracy"]) for row in hardest) / 8  # all of them are among the hardest 10
    assert mean == pytest.approx(float(last["val/accuracy"]))


@pytest.mark.slow
def test_a_resumed_run_takes_the_same_pictures(pictured: Path, tmp_path: Path):
    """Catches a count of validations that starts over, and pictures that depend on the process."""
    assert tiny(tmp_path, "--run.pictures_every=2", *HALVED, "--trainer.max_steps=3", command="fit") == 0
    more = ["--run.pictures_every=2", *LONG, "--resume=auto"]
    assert tiny(tmp_path, *more, command="fit") == 0
    pictures = taken(folders(tmp_path)[0])
    assert pictures.keys() == names([3, 6, 12])  # 3: the end of the first part
    assert {path: content for path, content in pictures.items() if "00000003" not in path} == taken(pictured)


@pytest.mark.slow
def test_a_kill_costs_no_picture_and_repeats_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches pictures of the end that a kill loses, and steps that TensorBoard shows twice."""

    def kill(*_: object) -> None:
        raise Interrupted(9)

    few = [EVERY, "--trainer.max_steps=4", "--run.checkpoint_every=1"]
    with monkeypatch.context() as patches:
        patches.setattr(Album, "add", lambda album, trainer, name, picture, step: step == 4 and kill())
        assert tiny(tmp_path, *few, command="fit") == 128 + 9
    assert tiny(tmp_path, *few, "--resume=auto", command="fit") == 0
    (folder,) = folders(tmp_path)
    assert {path for path in taken(folder) if "4" in path} == names([4], DRAWN - {"task_accuracies"})
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]


def test_pictures_that_are_taken_again_are_dropped(tmp_path: Path):
    """Catches a picture of weights that a resumed run never had, and the loss of earlier pictures."""
    for step in (3, 6, 100_000_000):
        (tmp_path / "pictures" / "codes").mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / "codes" / f"step-{step:08}.png").touch()
    (tmp_path / "pictures" / "codes" / "step-of-mine.png").touch()
    Album(tmp_path).forget_after(3)
    assert taken(tmp_path).keys() == {"codes/step-00000003.png", "codes/step-of-mine.png"}


def test_an_end_between_validations_has_its_pictures(tmp_path: Path):
    """Catches the accuracies of an earlier step's weights, at the end of a run."""
    assert tiny(tmp_path, EVERY, "--trainer.max_steps=4", command="fit") == 0
    assert taken(folders(tmp_path)[0]).keys() == names([3]) | names(
        [4], ALL - {"task_accuracies", "hardest_tasks"}
    )


def test_tensorboard_shows_them(pictured: Path):
    """Catches an image that is missing or at another step, a table without text, a rate of the next step."""
    events = EventAccumulator(str(pictured / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {f"pictures/{name}" for name in DRAWN}
    for name in DRAWN:
        images = events.Images(f"pictures/{name}")
        assert [image.step for image in images] == [5, 11]  # with the numbers of the last step
        assert all(image.width == 910 for image in images)
    (text,) = (tag for tag in events.Tags()["tensors"] if "hardest_tasks" in tag)
    assert b"| rank | task | classes |" in events.Tensors(text)[-1].tensor_proto.string_val[0]
    rates = [event.value for event in events.Scalars("health/learning_rate")]
    assert rates == pytest.approx(6 * [1e-3] + 6 * [5e-4])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_shows_them(tmp_path: Path):
    """Catches a run of W&B without pictures, or without the table."""
    assert tiny(tmp_path, "--run.wandb=offline", "--trainer.max_steps=3", EVERY, command="fit") == 0
    logged = {name for row in read_back(folders(tmp_path)[0]).rows for name in row}
    assert {f"pictures/{name}" for name in ALL} <= {name.partition(".")[0] for name in logged}


def test_a_picture_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a training that a full disk ends, a line for each picture, or a module left in another mode."""
    assert tiny(tmp_path, "--trainer.max_steps=3", command="fit") == 0
    (folder,) = folders(tmp_path)
    (folder / "pictures").write_text("in the way")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert tiny(tmp_path, EVERY, "--resume=auto", command="fit") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: step 6: no picture of codes, inner_steps, task_accuracies, ")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert (folder / "pictures").read_text() == "in the way"


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_and_a_bank_on_the_disk(precision: str, tmp_path: Path):
    """Catches embeddings of another type than the weights, types that NumPy lacks, and rows never read."""
    from leo_lightning.data.splits import save_splits

    save_splits(list(banks().items()), tmp_path / "features")
    options = [f"--data.root={tmp_path / 'features'}", "--data.in_memory=false", "--data.query=4", EVERY]
    options += [f"--trainer.precision={precision}", "--trainer.max_steps=3", "--data.test_query=all"]
    assert tiny(tmp_path, *options, command="fit") == 0
    (folder,) = folders(tmp_path)
    assert taken(folder).keys() == names([3])
    (hardest, *_) = rows(folder / "pictures" / "hardest_tasks" / "step-00000003.csv")
    assert hardest["support"].count(".jpg") == 5


@pytest.mark.parametrize("config", ["regression", "regression_maml"])
def test_functions_have_pictures_of_their_own(config: str, tmp_path: Path):
    """Catches accuracies and confusions of what has no classes, and a fit without pictures."""
    others = ("learner", "pictures", "root", "way")
    sizes = [flag for flag in TINY if not any(word in flag for word in others)]
    where = [f"--run.root={tmp_path}", "--run.name=tiny", "--trainer.max_steps=3"]
    assert main(["fit", f"--config={ROOT / 'configs' / config}.yaml", *sizes, *where]) == 0
    expected = {"inner_steps", "task_errors", "hardest_tasks"}
    expected |= {"codes", "learning_rates"} if config == "regression" else set()
    assert taken(folders(tmp_path)[0]).keys() == names([3], expected)


@pytest.mark.slow
def test_two_processes_draw_once(tmp_path: Path):
    """Catches processes that wait for each other, and scores of one process's tasks alone."""
    where = [f"--run.root={tmp_path}", "--run.name=tiny", "--trainer.max_steps=3", EVERY]
    command = [sys.executable, str(ROOT / "train.py"), "fit", *TINY, *where, "--trainer.devices=2"]
    done = subprocess.run(
        [*command, "--trainer.strategy=ddp", "--data.val_tasks=8"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    (folder,) = folders(tmp_path)
    assert taken(folder).keys() == names([3])
    table = rows(folder / "pictures" / "task_accuracies" / "step-00000003.csv")
    assert sum(int(row["tasks"]) for row in table) == 8


def test_a_trial_run_leaves_nothing(tmp_path: Path):
    """Catches pictures of a fast_dev_run."""
    assert tiny(tmp_path, EVERY, "--trainer.fast_dev_run=true", command="fit") == 0
    assert not (folders(tmp_path)[0] / "pictures").exists()
