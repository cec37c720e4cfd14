"""What `python -m leo_lightning dashboard` refuses, for test_refusals.py and docs/errors.md."""

from collections.abc import Callable
from typing import NoReturn

from wandb.errors import AuthenticationError, UsageError

from tests.refusals import Case, World, without

VIEW = "dashboard --entity me --project leo"
MANUAL = "see python -m leo_lightning dashboard --help"


def answer(error: Exception) -> Callable[[World], object]:
    """W&B that refuses to save a view."""

    def save(view: object) -> NoReturn:
        raise error

    return lambda world: world.monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", save)


DASHBOARD = {
    "no project named": Case(
        "dashboard", f"the following arguments are required: --entity, --project; {MANUAL}"
    ),
    "flag without a value": Case("dashboard --name", f"argument --name: expected one argument; {MANUAL}"),
    "no such flag": Case(f"{VIEW} --url x", f"unrecognized arguments: --url x; {MANUAL}"),
    "picture in a name": Case(
        f"{VIEW} --dry-run --name ☀",
        "--name: W&B does not take it (Emojis are not allowed :(); choose another",
    ),
    "package that is not installed": Case(
        f"{VIEW} --dry-run",
        "the view needs the package wandb_workspaces: pip install wandb_workspaces",
        without("wandb_workspaces"),
    ),
    "not logged in": Case(
        VIEW,
        "W&B: No API key configured. Use `wandb login` to log in; check network and key, or print the view: "
        "--dry-run",
        answer(UsageError("No API key configured. Use `wandb login` to log in.")),
    ),
    "no network": Case(
        VIEW,
        "W&B: Failed to verify credentials; check network and key, or print the view: --dry-run",
        answer(AuthenticationError("Failed to verify credentials")),
    ),
}
