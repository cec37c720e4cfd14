"""`python -m leo_lightning dashboard`: the saved view of a W&B project, as code.

Slow modules are imported inside the functions, so that `--help` answers at once. wandb-workspaces turns the
view into W&B's own specification of it: docs.wandb.ai/models/track/workspaces.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError, one_line, require
from leo_lightning.common.program import called

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"  # the x axis, as Lightning logs it

BEST = "best/accuracy"
SEARCHED = (
    "model.learning_rate",
    "model.learner.init_args.dropout",
    "model.learner.init_args.kl_weight",
    "model.learner.init_args.latent_lr",
    "model.learner.init_args.finetuning_lr",
)
"""Hyperparameters in a run's configuration that are searched most often."""


def main(argv: Sequence[str]) -> None:
    """Save a view."""
    parser = ArgumentParser(
        prog=f"{called()} dashboard",
        description="Save a view of a W&B project: outcome, inner loop, regularisers, health, throughput, "
        "pictures and hyperparameters of its runs (those with --run.wandb). Each call saves a new view.",
    )
    add = parser.add_argument
    add("--entity", required=True, metavar="E", help="user or team that the project belongs to")
    add("--project", required=True, metavar="P", help="project of the runs, see --run.wandb_project")
    add("--name", default="LEO", help="name of the view (default: LEO)")
    add("--dry-run", action="store_true", help="print the view as JSON; needs no account and no network")
    arguments = parser.parse_args(argv)
    require("wandb_workspaces", "the view")
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        view = workspace(arguments.entity, arguments.project, arguments.name)
        if arguments.dry_run:
            print(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=2))
        else:
            view.save()
            print(f"view  {view.url}")
    except Exception as error:  # W&B's own, its service's, or pydantic's
        reason = one_line(error).rstrip(".")
        raise InputError(
            f"W&B: {reason}; check name, network and key, or print the view: --dry-run"
        ) from None


def workspace(entity: str, project: str, name: str) -> "Workspace":
    """The view; W&B is not contacted."""
    from wandb_workspaces import workspaces

    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            workspaces.Section(name=title, panels=panels, is_open=True) for title, panels in _panels().items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=STEP),
        runset_settings=workspaces.RunsetSettings(
            order=[workspaces.Ordering(workspaces.Summary(BEST), ascending=False)]
        ),
    )


def _panels() -> dict[str, list[Any]]:
    """Panels by section, the most important first."""
    from wandb_workspaces.reports.v2 import panels
    from wandb_workspaces.reports.v2.interface import Config, ParallelCoordinatesPlotColumn, SummaryMetric

    def lines(title: str, *metrics: str, log: bool = False) -> Any:
        return panels.LinePlot(title=title, x=STEP, y=list(metrics), log_y=log or None)

    def bars(title: str, *metrics: str) -> Any:
        return panels.BarPlot(title=title, metrics=list(metrics))

    def pictures(title: str, name: str) -> Any:
        return panels.MediaBrowser(title=title, media_keys=[f"pictures/{name}"], num_columns=1)

    stages = ("accuracy_before_adaptation", "accuracy_after_latent_steps", "accuracy")
    terms = ("cross_entropy", "kl", "encoder_penalty", "l2_penalty", "orthogonality_penalty")
    columns = [
        ParallelCoordinatesPlotColumn(metric=metric)
        for metric in (*map(Config, SEARCHED), SummaryMetric(BEST))
    ]
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
            pictures("Inner steps", "inner_steps"),
            pictures("Latent codes", "codes"),
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
            pictures("Learned step sizes", "learning_rates"),
        ],
        "Throughput": [lines("Tasks per second", "throughput/tasks_per_second")],
        "Tasks": [
            pictures("Accuracy of the tasks", "task_accuracies"),
            pictures("Confusion", "confusion"),
            panels.WeavePanelSummaryTable(table_name="pictures/hardest_tasks"),
        ],
        "Hyperparameters": [
            panels.ParallelCoordinatesPlot(title="Best accuracy", columns=columns),
            panels.ParameterImportancePlot(with_respect_to=BEST),
            panels.RunComparer(diff_only="split"),
        ],
    }
