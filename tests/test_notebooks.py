"""The notebooks run from start to end, and their stored outputs and their sentences are true."""

import copy
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from tests.places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 600
"""Limit for one cell, on a busy machine."""


def stored(path: Path) -> Any:
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> Iterator[Any]:
    for cell in code(notebook):
        yield from cell.outputs


def kinds(notebook: Any) -> list[list[Any]]:
    """Type, stream and formats of each cell's outputs, without their content."""
    return [
        [(output.output_type, output.get("name"), sorted(output.get("data", ()))) for output in cell.outputs]
        for cell in code(notebook)
    ]


def scores(notebook: Any) -> dict[str, list[float]]:
    """The numbers of each method in the printed table of a test."""
    plain = [
        output.data["text/plain"] for output in outputs(notebook) if "text/html" in output.get("data", ())
    ]
    lines = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(plain)).splitlines()
    rows = [[part.strip() for part in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


def check_quickstart(table: dict[str, list[float]]) -> None:
    accuracy = {name: row[0] for name, row in table.items()}
    assert accuracy["LEO"] > 2 * accuracy["nearest centroid"]
    before, latent = accuracy["LEO before adaptation"], accuracy["LEO after the latent steps"]
    assert latent - before > 1
    assert abs(accuracy["LEO"] - latent) < 0.1


def check_regression(table: dict[str, list[float]]) -> None:
    error = {name: row[0] for name, row in table.items()}
    assert error["GeneralLEO after the latent steps"] < error["GeneralLEO before adaptation"] / 2
    assert error["GeneralLEO"] < error["GeneralLEO after the latent steps"]
    assert error["GeneralLEO, mean over its samples"] < error["GeneralLEO"]
    assert error["ideal observer that does not"] < error["GeneralLEO, mean over its samples"] / 2


def check_answers(answers: list[list[Any]], steps: list[list[Any]]) -> None:
    right = [row[2] == row[3] for row in answers if row[0] == "query"]
    assert sum(right) > 0.9 * len(right)
    accuracy = [row[3] for row in steps if row[2] == "accuracy"]
    assert accuracy[:6] == sorted(accuracy[:6])
    assert max(accuracy[5:]) - min(accuracy[5:]) < 0.002


def check_functions(functions: list[list[Any]]) -> None:
    families = [row[6:] for row in functions if row[3] == "family"]
    shares = [[samples.count(family) / len(samples) for family in ("sine", "line")] for samples in families]
    assert shares[0][0] > 0.9
    assert shares[1][1] > 0.9
    assert all(min(share) < 0.3 for share in shares[2:])


def check_space(codes: list[list[Any]], geometry: list[list[Any]]) -> None:
    classes = np.array([row[1] for row in codes[1:]])
    z, adapted = np.split(np.array([row[2:] for row in codes[1:]]), 2, axis=1)
    names = np.unique(classes)
    middles = np.array([np.median(adapted[classes == name], axis=0) for name in names])
    closest = names[np.linalg.norm(z[:, None] - middles, axis=2).argmin(1)]
    assert (closest == classes).mean() > 0.8
    assert np.median(np.linalg.norm(z - adapted, axis=1)) < np.ptp(z) / 100
    values: dict[str, list[float]] = {}
    for panel, _, of, _, median, *_ in geometry[1:]:
        values.setdefault(panel + of, []).append(median)
    assert min(values["cz"]) > 10 * max(values["cθ"])
    assert 9 <= sum(value > 3 for value in values["bdecoder"]) <= 15
    assert sum(value < 1 for value in values["bdecoder"]) > 32
    ratio = np.divide(values["az"][:10], values["aθ"][:10])
    assert 0.5 < ratio.min() <= ratio.max() < 2


def check_photos(answers: list[list[Any]], scores: list[list[Any]]) -> None:
    right = [name == answer for name, answer, _ in answers[1:]]
    assert len(right) == 20
    assert sum(right) > 0.6 * len(right)
    for _, auroc, lost, rejected in scores[1:]:
        assert auroc > 0.6
        assert lost < 0.1 < rejected


TABLES = {"quickstart": check_quickstart, "regression": check_regression}
"""Checks of what a notebook says about its table of a test."""
FIGURES = {
    "images": check_photos,
    "latent_space": check_space,
    "quickstart": check_answers,
    "regression": check_functions,
}
"""Checks of what a notebook says about its figures; arguments are the variables that hold them."""


def drawings(name: str) -> list[str]:
    return list(inspect.signature(FIGURES[name]).parameters)


def test_all_notebooks_are_there():
    """Catches a notebook whose claims are not checked."""
    assert [path.stem for path in NOTEBOOKS] == list(FIGURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs(path: Path):
    """Catches cells run out of order, paths and errors of a machine, noise, and a file too large to read."""
    notebook, text = stored(path), path.read_text(encoding="utf-8")
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in notebook.cells] == [f"cell-{i}" for i in range(1, len(notebook.cells) + 1)]
    assert not any(cell.metadata for cell in notebook.cells)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    stored_outputs = list(outputs(notebook))
    assert sum("image/png" in output.get("data", ()) for output in stored_outputs) == len(drawings(path.stem))
    assert {output.get("name", "stdout") for output in stored_outputs} == {"stdout"}
    for bad in ("/tmp", "/home", "/root", "Traceback", "Warning", "warning"):
        assert not any(bad in json.dumps(without_pictures(output)) for output in stored_outputs), bad
    assert len(text) < 600_000
    if path.stem in TABLES:
        TABLES[path.stem](scores(notebook))


def without_pictures(output: Any) -> dict[str, Any]:
    """The output without PNG data, whose letters may spell anything."""
    data = {form: value for form, value in output.get("data", {}).items() if form != "image/png"}
    return {**output, "data": data}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a call that the package no longer has, warnings, files left behind, and untrue sentences."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # as in a clone, where the package is next to the folder of notebooks
    for name in ("leo_lightning", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    before = stored(path)
    notebook = copy.deepcopy(before)
    values = ", ".join(f"{name!r}: {name}.rows" for name in drawings(path.stem))
    probe = f"import json; print(json.dumps({{{values}}}))"
    notebook.cells.append(nbformat.v4.new_code_cell(probe))
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    rows = json.loads(notebook.cells.pop().outputs[0].text)
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []
    assert kinds(notebook) == kinds(before)
    assert not list(folder.iterdir())
    if path.stem in TABLES:
        TABLES[path.stem](scores(notebook))
    FIGURES[path.stem](**rows)
