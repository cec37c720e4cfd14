"""Agreement with the authors' code, and the comparer's own ability to disagree."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import parity
from tests.oracles import leo_numpy as oracle
from tests.places import FIXTURES

FILES = sorted(FIXTURES.glob("*.npz"))
each_leo = pytest.mark.parametrize("kind", parity.KINDS.values(), ids=parity.KINDS)
SMALL = FIXTURES / "leo_train_noclamp_1shot.npz"


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def synthetic(seed: int = 0, **sizes: object) -> dict[str, np.ndarray]:
    """A fixture whose numbers come from the NumPy oracle."""
    arrays = oracle.problem(seed, **sizes)
    arrays |= oracle.solve(arrays)
    if "eps_encoder" in arrays:
        arrays |= oracle.optimise(arrays)
    else:
        del arrays["meta_loss"]
    return arrays


def failures(path: Path, kind: type[parity.Either] = parity.LEO) -> set[str]:
    return {row.quantity for row in parity.compare(path, kind) if not row.passed}


def test_there_are_fixtures():
    """Catches a parametrisation over an empty list, which passes."""
    assert len(FILES) == 8


@each_leo
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_leos_compute_the_authors_numbers(path: Path, kind: type[parity.Either]):
    """Catches any departure from the original: final ReLU, raw std, mean inner loss, global clipping …"""
    rows = parity.compare(path, kind)
    assert [row for row in rows if not row.passed] == []
    least = {"eval_full": 24, "eval": 19, "train_nan": 20, "train": 62}
    stem = path.stem.removeprefix("leo_")
    assert len(rows) >= next(count for start, count in least.items() if stem.startswith(start))


def run(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, parity.__file__, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_accepts_the_authors_numbers():
    """Catches a script that needs the working directory, or PYTHONPATH, of whoever wrote it."""
    result = run(SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert "FAIL" not in result.stdout
    assert "grad_raw_w_encoder" in result.stdout


def test_the_command_refuses_one_perturbed_number(tmp_path: Path):
    """Catches a comparer that prints differences but cannot fail."""
    arrays = read(SMALL)
    arrays["latents_steps"][1, 2, 3, 0, 4] += 1e-6
    result = run(SMALL, write(tmp_path / "perturbed.npz", arrays))
    assert (result.returncode, result.stderr) == (1, "")
    wrong = [line.split()[1] for line in result.stdout.splitlines() if "FAIL" in line]
    assert wrong == 2 * ["latents_steps"]


@each_leo
@pytest.mark.parametrize(
    "quantity", [name for name in read(SMALL) if name not in parity.INPUTS and not name.startswith("cfg_")]
)
def test_every_number_counts(
    quantity: str, kind: type[parity.Either], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches a quantity that is listed but compared with itself, or with a tolerance that passes all."""
    arrays = read(SMALL)
    arrays[quantity] = arrays[quantity].copy()
    arrays[quantity].flat[-1] += 1e-6 if quantity != "accuracy" else 1 / 75
    computed = computed_values(kind)
    monkeypatch.setattr(parity, "forward_values", lambda *_: (computed, None))
    monkeypatch.setattr(parity, "gradient_values", lambda *_: {})
    assert failures(write(tmp_path / "perturbed.npz", arrays), kind) == {quantity}


@cache
def computed_values(kind: type[parity.Either]) -> dict[str, torch.Tensor]:
    """Numbers of the package for SMALL, once for all tests."""
    fixture, double = parity.Fixture.read(SMALL), torch.float64
    values, _ = parity.forward_values(fixture, fixture.learner(double, kind), double)
    return values | parity.gradient_values(fixture, fixture.learner(double, kind), double)


@pytest.mark.parametrize("quantity", ["val_logits", "kl", "meta_loss", "code_params", "adam2_w_decoder"])
def test_an_absent_or_renamed_quantity_is_noticed(quantity: str, tmp_path: Path):
    """Catches a comparer that passes over what it does not find, on either side."""
    arrays = read(SMALL)
    arrays["renamed"] = arrays.pop(quantity)
    assert failures(write(tmp_path / "renamed.npz", arrays)) == {quantity, "renamed"}


@pytest.mark.parametrize("name", ["w_relation_1", "eps_decoder", "tr_input", "cfg_kl_weight", "inner_lr"])
def test_an_absent_input_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a traceback, and a training fixture that passes for evaluation once its noise is gone."""
    arrays = read(SMALL)
    del arrays[name]
    assert parity.main([str(write(tmp_path / "cut.npz", arrays))]) == 1
    assert f"there is no {name}" in capsys.readouterr().out


def test_absent_masks_are_named(tmp_path: Path):
    """Catches dropout that is silently off."""
    arrays = oracle.problem(0, dropout=0.3)
    del arrays["mask_query"]
    with pytest.raises(ValueError, match="there is no mask_query"):
        parity.compare(write(tmp_path / "cut.npz", arrays))


def test_a_half_of_a_single_precision_fixture_is_not_enough(tmp_path: Path):
    """Catches the float64 numbers of the full-size fixture going unread."""
    path = next(path for path in FILES if "full" in path.stem)
    arrays = {name: array for name, array in read(path).items() if not name.startswith("f64_")}
    assert failures(write(tmp_path / "half.npz", arrays)) == {f"f64_{name}" for name in parity.RESULTS}


def test_labels_must_be_class_rows(tmp_path: Path):
    """Catches a reader that ignores labels in another order."""
    arrays = read(SMALL)
    arrays["val_output"] = arrays["val_output"][:, ::-1]
    with pytest.raises(ValueError, match="label"):
        parity.compare(write(tmp_path / "shuffled.npz", arrays))


def test_not_finite_numbers_match_only_their_like():
    """Catches NaN that equals infinity, and differences that a NaN hides."""
    double = torch.tensor([1.0, float("nan")]).double()
    assert parity.difference(double, np.array([1.0, np.nan])) == 0
    assert parity.difference(double, np.array([3.0, np.nan])) == 2
    for other in (np.array([1.0, np.inf]), np.array([np.nan, 1.0]), np.array([1.0, 0.0]), np.ones(3)):
        assert parity.difference(double, other) == np.inf


def test_the_bad_step_check_sees_a_step():
    """Catches a check of the skipped step that finds no change in any step."""
    assert parity.bad_step_change(parity.Fixture.read(SMALL)) > 1e-5


@each_leo
@pytest.mark.parametrize(
    "sizes",
    [
        {"B": 1, "N": 2, "K": 3, "Q": 1, "E": 5, "H": 2, "T": 1, "F": 3, "dropout": 0.3},
        {"B": 2, "N": 3, "K": 1, "Q": 2, "E": 3, "H": 2, "T": 0, "F": 2},
        {"B": 2, "N": 2, "K": 2, "Q": 2, "E": 4, "H": 1, "T": 2, "F": 0, "dropout": 0.25},
        {"B": 1, "N": 3, "K": 2, "Q": 2, "E": 3, "H": 2, "T": 0, "F": 0},
        {"B": 3, "N": 4, "K": 2, "Q": 3, "E": 6, "H": 3, "T": 3, "F": 1, "training": False},
        {"B": 1, "N": 2, "K": 1, "Q": 1, "E": 2, "H": 4, "T": 0, "F": 0, "training": False},
    ],
    ids=lambda sizes: "-".join(f"{name}{value}" for name, value in sizes.items()),
)
def test_sizes_are_read_from_the_file(sizes: dict[str, int], kind: type[parity.Either], tmp_path: Path):
    """Catches sizes of the authors' fixtures in the code, and T or F = 0 left out."""
    rows = parity.compare(write(tmp_path / "synthetic.npz", synthetic(**sizes)), kind)
    assert [row for row in rows if not row.passed] == []
    assert len(rows) >= 19
