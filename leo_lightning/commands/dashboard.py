"""`python -m leo_lightning dashboard`: the saved view of a W&B project, as code.

What takes long to import is imported inside the functions, so that `--help` answers at once. The view is of
wandb-workspaces, which makes W&B's own specification of it: docs.wandb.ai/models/track/workspaces.
"""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leo_lightning.commands.arguments import ArgumentParser, exit_code
from leo_lightning.common.errors import InputError, one_line, require

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"
"""What Lightning logs as the x axis."""

BEST = "best/accuracy"
SEARCHED = (
    "model.learning_rate",
    "model.learner.init_args.dropout",
    "model.learner.init_args.kl_weight",
    "model.learner.init_args.latent_lr",
    "model.learner.init_args.finetuning_lr",
)
"""Hyperparameters in a run's configuration that a search is most often about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        Exit code: 0, 2 after a user's mistake, 130 after Ctrl-C.
    """
    return exit_code(lambda: _make(_parser().parse_args(argv)), "interrupted; no view was saved")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m leo_lightning dashboard",
        description="Save a view of a W&B project: outcome, inner loop, regularisers, health, throughput, "
        "pictures and hyperparameters of its runs (those with --run.wandb). Each call saves a new view.",
    )
    add = parser.add_argument
    add("--entity", required=True, metavar="E", help="user or team that the project belongs to")
    add("--project", required=True, metavar="P", help="project of the runs, see --run.wandb_project")
    add("--name", default="LEO", help="name of the view (default: LEO)")
    add("--dry-run", action="store_true", help="print the view as JSON; needs no account, contacts nothing")
    return parser


def _make(arguments: argparse.Namespace) -> None:
    require("wandb_workspaces", "the view")
    os.environ.setdefault("WANDB_SILENT", "true")  # it says much; where the view is, is said below
    view = workspace(arguments.entity, arguments.project, arguments.name)
    if arguments.dry_run:
        print(specification(view))
        return
    try:
        view.save()
    except Exception as error:  # no key, no network, no such project: of W&B's own, its service's, pydantic's
        reason = one_line(error).rstrip(".")
        raise InputError(f"W&B: {reason}; check network and key, or print the view: --dry-run") from None
    print(f"view  {view.url}")


def specification(view: "Workspace") -> str:
    """The JSON that W&B keeps of a view."""
    return view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2)


def workspace(entity: str, project: str, name: str) -> "Workspace":
    """The view; nothing is contacted.

    Raises:
        InputError: W&B takes no such name.
    """
    from pydantic import ValidationError
    from wandb_workspaces import workspaces

    sections = [
        workspaces.Section(name=title, panels=panels, is_open=True) for title, panels in _sections().items()
    ]
    best_first = workspaces.Ordering(workspaces.Summary(BEST), ascending=False)
    try:
        return workspaces.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=sections,
            settings=workspaces.WorkspaceSettings(x_axis=STEP),
            runset_settings=workspaces.RunsetSettings(order=[best_first]),
        )
    except ValidationError as error:
        reason = one_line(ValueError(error.errors()[0]["msg"])).removeprefix("Value error, ")
        raise InputError(f"--name: W&B does not take it ({reason}); choose another") from None


def _sections() -> dict[str, list[Any]]:
    """Panels by section, the most important first."""
    from wandb_workspaces.reports.v2 import panels
    from wandb_workspaces.reports.v2.interface import (
        Config,
        ParallelCoordinatesPlotColumn,
        SummaryMetric,
    )

    def lines(title: str, *metrics: str, log: bool = False) -> Any:
        return panels.LinePlot(title=title, x=STEP, y=list(metrics), log_y=log or None)

    def bars(title: str, *metrics: str) -> Any:
        return panels.BarPlot(title=title, metrics=list(metrics))

    def pictures(title: str, key: str) -> Any:
        return panels.MediaBrowser(title=title, media_keys=[key], num_columns=1)

    def best(key: str) -> Any:
        return ParallelCoordinatesPlotColumn(metric=SummaryMetric(key))

    stages = ("accuracy_before_adaptation", "accuracy_after_latent_steps", "accuracy")
    terms = ("cross_entropy", "kl", "encoder_penalty", "l2_penalty", "orthogonality_penalty")
    searched = [ParallelCoordinatesPlotColumn(metric=Config(name)) for name in SEARCHED]
    return {
        "Outcome": [
            lines("Validation accuracy", "val/accuracy"),
            lines("Validation accuracy, ± of its 95% interval", "val/accuracy_ci95"),
            lines("Accuracy of training tasks", "train/accuracy"),
            lines("Loss", "train/loss", "val/loss"),
            bars("Best validation accuracy", BEST),
            panels.ScatterPlot(
                title="Best validation accuracy, and its step",
                x=SummaryMetric("best/step"),
                y=SummaryMetric(BEST),
            ),
            bars("Test accuracy", "test/accuracy"),
            bars("Test accuracy, ± of its 95% interval", "test/accuracy_ci95"),
            bars("Test accuracy by stage", *(f"test/{stage}" for stage in stages)),
        ],
        "Inner loop": [
            lines("Validation accuracy by stage", *(f"val/{stage}" for stage in stages)),
            lines("Learned step size of the latent steps, α", "inner/latent_lr", log=True),
            lines("Learned step size of fine-tuning, η", "inner/finetuning_lr", log=True),
            pictures("Inner steps", "pictures/inner_steps"),
            pictures("Latent codes", "pictures/codes"),
        ],
        "Regularisers": [
            lines(f"{term.replace('_', ' ')}, weighted", f"loss/{term}", log=term != "cross_entropy")
            for term in terms
        ],
        "Health": [
            lines("Norm of the gradient", "health/gradient_norm", log=True),
            lines("Steps skipped: loss or gradient not finite", "health/bad_steps"),
            lines("Outer learning rate", "health/learning_rate", log=True),
            lines("Latent dimensions that carry nothing", "inner/dead_latents"),
            lines("Standard deviations that are clamped", "inner/clamped_stds"),
            pictures("Learned step sizes", "pictures/learning_rates"),
        ],
        "Throughput": [lines("Tasks per second", "throughput/tasks_per_second")],
        "Tasks": [
            pictures("Accuracy of the tasks", "pictures/task_accuracies"),
            pictures("Confusion", "pictures/confusion"),
            panels.WeavePanelSummaryTable(table_name="pictures/hardest_tasks"),
        ],
        "Hyperparameters": [
            panels.ParallelCoordinatesPlot(title="Best accuracy", columns=[*searched, best(BEST)]),
            panels.ParameterImportancePlot(with_respect_to=BEST),
            panels.RunComparer(diff_only="split"),
        ],
    }
