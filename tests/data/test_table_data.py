"""Tasks of regression from CSV files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.table_data import TableDataModule
from tests.data.tables import HEADER, functions, write_csv, write_table

NUMBERS = range(200)


def module(root: Path, shot: int = 2, query: int = 3, **settings: object) -> TableDataModule:
    return TableDataModule(root, shot, query, **{"target": "height", **settings})  # pyright: ignore[reportArgumentType]


def folder(root: Path, tasks: dict[str, list[tuple[float, float, float]]], splits: dict[str, str]) -> Path:
    for name, points in tasks.items():
        write_csv(root / splits.get(name, "") / f"{name}.csv", [HEADER[1:], *points])
    return root


def splits_of(data: TableDataModule) -> dict[str, set[str]]:
    return {split: {*data.class_names(split)} for split in ("train", "val", "test")}


def halves(tasks: Sequence[str]) -> dict[str, str]:
    return {name: ("train", "val", "test")[number % 3] for number, name in enumerate(tasks)}


def test_three_layouts_hold_the_same_tasks(tmp_path: Path):
    """Catches a layout whose points, columns, order or splits are others."""
    tasks = functions(9)
    by = halves([*tasks])
    long = module(write_table(tmp_path / "long.csv", tasks, by))
    folders = module(folder(tmp_path / "folders", tasks, by))
    expected = {split: {name for name in by if by[name] == split} for split in ("train", "val", "test")}
    assert splits_of(long) == splits_of(folders) == expected
    assert "by column 'split'" in long.banner("fit")
    assert "by folder" in folders.banner("fit")
    for stage in ("fit", "validate", "test"):
        one, other = (data.sampler(stage)(range(5)) for data in (long, folders))
        assert torch.equal(one.support, other.support)
        assert torch.equal(one.query, other.query)
    flat = module(folder(tmp_path / "flat", tasks, {}))
    table = module(write_table(tmp_path / "undivided.csv", tasks))
    assert splits_of(flat) == splits_of(table)
    assert [len(names) for names in splits_of(flat).values()] == [5, 2, 2]
    other = module(tmp_path / "flat", division_seed=1)
    assert splits_of(other) != splits_of(flat)
    assert "seed 0" in flat.banner("fit")


def test_points_are_those_of_the_table_normalised_by_the_training_tasks(tmp_path: Path):
    """Catches points of another task, a mean over all tasks, and support points among the queries."""
    tasks = functions(9)
    by = halves([*tasks])
    data = module(write_table(tmp_path / "a.csv", tasks, by), noise=7.0)
    training = np.concatenate([tasks[name] for name in tasks if by[name] == "train"])
    mean, std = training.mean(0), training.std(0)
    for stage, split in (("fit", "train"), ("validate", "val"), ("test", "test")):
        episode = data.sampler(stage)(NUMBERS)
        assert episode.rows is not None
        assert episode.rows.classes is not None
        names = data.class_names(split)
        seen = set()
        for task in NUMBERS:
            name = names[int(episode.rows.classes[task, 0])]
            points = torch.cat([episode.support[task, 0], episode.query[task, 0]]).double().numpy()
            back = {tuple(row) for row in (points * std + mean).round(2).tolist()}
            theirs = {tuple(row) for row in np.round(tasks[name], 2).tolist()}
            assert len(back) == 5
            assert all(np.abs(np.array([*theirs]) - row).max(1).min() < 0.02 for row in back)
            seen.add(name)
        assert seen == {*names}
        assert episode.noise == pytest.approx(7 / std[-1])
        assert (episode.offset, episode.scale) == pytest.approx((mean[-1], std[-1]))
        assert not episode.known_families


def test_a_task_is_a_function_of_its_number(tmp_path: Path):
    """Catches a state, and validation that changes with the seed of the training."""
    root = write_table(tmp_path / "a.csv", functions(9))
    first, second = module(root), module(root, seed=5)
    whole, part = first.sampler("fit")(range(9)), first.sampler("fit")([4])
    assert torch.equal(whole.support[4:5], part.support)
    assert not torch.equal(second.sampler("fit")([4]).support, part.support)
    assert torch.equal(first.sampler("validate")([4]).query, second.sampler("validate")([4]).query)
    larger = module(root, query=4).sampler("fit")([4])
    assert torch.equal(larger.query[:, :, :3], part.query)


def test_queries_come_back_in_their_own_units(tmp_path: Path):
    """Catches numbers that float32 or the normalisation has changed."""
    tasks = functions(9)
    data = module(write_table(tmp_path / "a.csv", tasks))
    episode = data.sampler("predict")(range(20))
    points = data.query_points(episode)
    given = {point for name in data.class_names("test") for point in tasks[name]}
    assert {tuple(point) for point in points.flatten(0, 1).tolist()} <= given
    back = episode.query[:, 0, :, -1].double() * episode.scale + episode.offset
    torch.testing.assert_close(back, points[..., -1], rtol=1e-5, atol=1e-3)


def test_a_checkpoint_brings_its_normalisation(tmp_path: Path):
    """Catches other tables that are normalised by their own mean, and training tasks tested unnoticed."""
    first = module(write_table(tmp_path / "a.csv", functions(9)))
    tasks = functions(9, seed=1)
    second = module(write_table(tmp_path / "b.csv", tasks, dict.fromkeys(tasks, "test")))
    with pytest.raises(InputError, match="has no train tasks"):
        second.setup("test")
    second.load_state_dict(first.state_dict())
    second.setup("test")
    assert second.sampler("test")(range(2)).scale == first.sampler("test")(range(2)).scale
    assert first.other_features("test") == []
    [line] = second.other_features("test")
    assert "5 tasks of test have names of tasks that were trained on" in line
    changed = module(write_table(tmp_path / "c.csv", functions(9, seed=2)))
    changed.load_state_dict(first.state_dict())
    assert changed.other_features("test") == [
        f"{tmp_path / 'c.csv'}: the training tasks differ from the ones of the checkpoint"
    ]


def damaged(state: dict[str, object], name: str) -> dict[str, object]:
    value = state[name]
    return state | {name: -value if isinstance(value, Tensor) else 3}


@pytest.mark.parametrize("name", ["columns", "std", "trained_on", "fingerprint"])
def test_a_damaged_record_is_refused(name: str, tmp_path: Path):
    """Catches a record that is used as it comes."""
    data = module(write_table(tmp_path / "a.csv", functions(9)))
    with pytest.raises(InputError, match="is damaged"):
        data.load_state_dict(damaged(data.state_dict(), name))


def test_other_columns_do_not_fit_a_checkpoint(tmp_path: Path):
    """Catches an input that takes the place of another."""
    data = module(write_table(tmp_path / "a.csv", functions(9)))
    other = module(tmp_path / "a.csv", inputs=["v", "u"])
    with pytest.raises(InputError, match="the columns are 'v', 'u', 'height'"):
        other.load_state_dict(data.state_dict())


def test_small_tasks_are_left_out_by_name(tmp_path: Path):
    """Catches tasks that vanish in silence, or all of them."""
    tasks = functions(9)
    tasks["hill 3"] = tasks["hill 3"][:4]
    root = folder(tmp_path / "a", tasks, {})
    with pytest.raises(InputError, match=r"'hill 3' of \w+ have fewer than K \+ Q = 2 \+ 3 points"):
        splits_of(module(root))
    data = module(root, skip_small_tasks=True)
    assert not any("hill 3" in names for names in splits_of(data).values())
    [line] = data.other_features("fit")
    assert line.endswith("fewer than K + Q = 2 + 3 points: 'hill 3'")
    assert "9 tasks (1 small ones left out)" in data.banner("fit")
    with pytest.raises(InputError, match="no task of train has"):
        module(root, query=30, skip_small_tasks=True).setup("fit")


GOOD = [HEADER, *([f"t{i}", 1.0 + i, 2.0 * j, i - j] for i in range(6) for j in range(6))]


def changed(row: int, column: int, value: object) -> list[list[object]]:
    rows = [[*line] for line in GOOD]
    rows[row][column] = value
    return rows


BAD: dict[str, tuple[list[list[object]], str]] = {
    "text for a number": (changed(3, 2, "two"), "line 4: column 'v' is 'two', not a finite number"),
    "nothing for a number": (changed(3, 2, ""), "line 4: column 'v' is '', not"),
    "NaN": (changed(5, 3, "nan"), "line 6: column 'height' is 'nan', not a finite number"),
    "infinity": (changed(5, 3, "1e999"), "line 6: column 'height' is '1e999'"),
    "no task column": (changed(0, 0, "station"), "has no column 'task', only 'station', 'u', 'v', 'height'"),
    "no value": (changed(0, 3, "z"), "has no column 'height'"),
    "two columns of a name": (changed(0, 1, "v"), "two columns have the name 'v'"),
    "nameless task": (changed(2, 0, " "), "line 3: the column 'task' is empty"),
    "ragged line": ([*GOOD, ["t9", 1]], "line 38 has 2 cells, and the first line 4"),
    "header alone": (GOOD[:1], "has no points"),
    "no inputs": ([["task", "height"], ["a", 1]], "has no column to predict from"),
    "constant value": ([[*row[:3], 7] if i else row for i, row in enumerate(map(list, GOOD))],
                       "column 'height' is 7 in all points of the training tasks"),
    "constant input": ([[r[0], 7, *r[2:]] if i else r for i, r in enumerate(map(list, GOOD))],
                       "column 'u' is 7 in all points"),
    "one point": ([GOOD[0], *GOOD[1::6]], "have fewer than K + Q = 2 + 3 points"),
    "two tasks": (GOOD[:13], "2 tasks are too few to divide"),
    "two splits": ([[*GOOD[0], "split"], [*GOOD[1], "val"], *([*row, "train"] for row in GOOD[2:])],
                   "line 3: task 't0' is in two splits, val and train"),
    "unknown split": ([[*GOOD[0], "split"], *([*row, "dev"] for row in GOOD[1:])],
                      "line 2: split is 'dev'; it must be train, val or test"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_refused(name: str, tmp_path: Path):
    """Catches a mistake that goes into training, or a message without its place."""
    rows, said = BAD[name]
    path = write_csv(tmp_path / "bad.csv", rows)
    with pytest.raises(InputError) as caught:
        module(path).setup("fit")
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert said in message
    assert "\n" not in message


def test_bad_folders_are_refused(tmp_path: Path):
    """Catches train.csv taken for a task named train, loose files, and a file of other columns."""
    tasks = functions(6)
    with pytest.raises(InputError, match="no such file or folder"):
        module(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no CSV file"):
        module(tmp_path / "empty")
    write_table(tmp_path / "splits" / "train.csv", tasks)
    with pytest.raises(InputError, match="has a column 'task', and a file of a folder is one task"):
        module(tmp_path / "splits")
    loose = folder(tmp_path / "loose", tasks, {"hill 0": "train"})
    with pytest.raises(InputError, match="lies beside the folders train"):
        module(loose)
    twice = folder(tmp_path / "twice", tasks, halves([*tasks]))
    folder(twice, {"hill 0": tasks["hill 0"]}, {"hill 0": "val"})
    with pytest.raises(InputError, match="task 'hill 0' is also in"):
        module(twice)
    other = folder(tmp_path / "other", tasks, {})
    write_csv(other / "x.csv", [("u", "v", "w", "height"), (1, 2, 3, 4)])
    with pytest.raises(InputError, match="has a column 'w' that the first file lacks"):
        module(other)
    (tmp_path / "page.csv").write_text("<!doctype html><title>Log in</title>\n<p>a,b</p>\n")
    with pytest.raises(InputError, match="is a web page"):
        module(tmp_path / "page.csv")


@pytest.mark.parametrize(
    "settings", [{"shot": 0}, {"query": 0}, {"noise": 0.0}, {"val_share": 0.0}, {"test_share": 1.0}]
)
def test_bad_settings(settings: dict[str, float], tmp_path: Path):
    """Catches a setting that is accepted and fails at the first batch."""
    [name] = settings
    with pytest.raises(InputError, match=f"data.{name}"):
        module(write_table(tmp_path / "a.csv", functions(9)), **settings)  # pyright: ignore[reportArgumentType]
