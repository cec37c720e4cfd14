"""The dashboard as code: a view of W&B that is made offline, and that names what runs log."""

import csv
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from pytorch_lightning.loggers import WandbLogger

from leo_lightning import __main__ as program
from leo_lightning.commands import dashboard

NOT_IN_METRICS = {"best/accuracy", "best/step"}
"""Kept in W&B's summary."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket is opened here, no process started and no key known."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("contacts something")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def specification(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """The specification that --dry-run prints."""
    assert program.run("dashboard", ["--entity=me", "--project=leo", "--dry-run", *flags]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def panels(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configurations of all panels."""
    for section in view["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            yield panel["config"]


def test_a_view_is_made_without_network(capsys: pytest.CaptureFixture[str]):
    """Catches a dry run that asks W&B, and a section that is left out or empty."""
    view = specification(capsys, "--name=mine")
    sections = view["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Outcome", "Inner loop", "Regularisers", "Health", "Throughput", "Tasks", "Hyperparameters",
    ]  # fmt: skip
    assert all(section["panels"] for section in sections)
    assert view["section"]["settings"]["shouldAutoGeneratePanels"] is False


def test_panels_show_what_a_run_logs(finished_run: Path, capsys: pytest.CaptureFixture[str]):
    """Against the columns of a run's metrics.csv. Catches a metric renamed here or there: an empty panel."""
    with (finished_run / "metrics.csv").open() as file:
        columns = set(next(csv.reader(file))) - {"step", "epoch"}
    shown = {metric for panel in panels(specification(capsys)) for metric in panel.get("metrics", [])}
    assert shown - columns <= NOT_IN_METRICS
    # results.json has what a test finds beside this: baselines, calibration
    assert {name for name in columns - shown if not name.startswith("test/")} == set()


def test_searched_hyperparameters_are_fields_of_a_run(finished_run: Path):
    """Catches a column of the parallel coordinates that no run's configuration has."""
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    for name in dashboard.SEARCHED:
        value = config
        for key in name.split("."):
            value = value[key]
        assert value > 0, name


def test_the_x_axis_is_lightnings(capsys: pytest.CaptureFixture[str]):
    """Catches curves over W&B's own count of calls, which a resumed or validated run does not share."""
    wandb_run = mock.MagicMock()
    WandbLogger(experiment=wandb_run).log_metrics({"a": 1.0}, step=7)
    assert wandb_run.log.call_args.args[0][dashboard.STEP] == 7
    assert {panel["xAxis"] for panel in panels(specification(capsys)) if "yLogScale" in panel} == {
        dashboard.STEP
    }


def test_what_wandb_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Catches a traceback of W&B's, its service's or its server's, and a view said to be saved."""
    from wandb_workspaces.workspaces import Workspace

    def fails(self: Workspace) -> None:
        raise RuntimeError("no such\nproject.")

    monkeypatch.setattr(Workspace, "save", fails)
    assert program.run("dashboard", ["--entity=me", "--project=leo"]) == 2
    said = capsys.readouterr()
    assert (
        said.err == "error: W&B: no such project; check name, network and key, or print the view: --dry-run\n"
    )
    assert said.out == ""
