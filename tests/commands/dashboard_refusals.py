"""Bad input to `python -m leo_lightning dashboard`, for test_refusals.py."""

from collections.abc import Callable
from typing import NoReturn

from wandb.errors import AuthenticationError, UsageError

from tests.refusals import Case, World, without

VIEW = "dashboard --entity me --project leo"


def answer(error: Exception) -> Callable[[World], object]:
    """W&B that refuses to save a view."""

    def save(view: object) -> NoReturn:
        raise error

    return lambda world: world.monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", save)


DASHBOARD = {
    "no project named": Case("dashboard", "the following arguments are required"),
    "flag without a value": Case("dashboard --name", "argument --name"),
    "no such flag": Case(f"{VIEW} --url x", "--url x"),
    "picture in a name": Case(f"{VIEW} --dry-run --name ☀", "Emojis are not allowed"),
    "package that is not installed": Case(
        f"{VIEW} --dry-run",
        "the view needs the package wandb_workspaces",
        without("wandb_workspaces"),
    ),
    "not logged in": Case(
        VIEW,
        "No API key configured. Use `wandb login` to log in",
        answer(UsageError("No API key configured. Use `wandb login` to log in.")),
    ),
    "no network": Case(
        VIEW,
        "Failed to verify credentials",
        answer(AuthenticationError("Failed to verify credentials")),
    ),
}
