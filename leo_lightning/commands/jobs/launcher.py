"""Launcher: where runs take place. The flags are the same for all commands.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from leo_lightning.common.errors import InputError, check_least

TIME = 240
"""Minutes of a SLURM job. A run that needs more is requeued, and goes on."""
NAMES = {"gpus": "gpus_per_node", "cpus": "cpus_per_task", "memory": "mem"}
"""Flags that submitit calls otherwise."""


@runtime_checkable
class Started(Protocol):
    """A run that was started."""

    def state(self) -> str:
        """`waiting`, `running`, `preempted` if it waits to go on, or `over`."""
        ...

    def code(self) -> int | None:
        """Exit code of a run that is over; None if it left none, since it was stopped or killed."""
        ...

    def end(self) -> str:
        """Why a run that is over left no exit code."""
        ...

    def stop(self) -> None:
        """Ask it to stop, and to save what it has."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def close(self) -> None:
        """Let go of a run that is over."""
        ...


@runtime_checkable
class Launcher(Protocol):
    """Starts runs."""

    def start(self, folder: Path, name: str, words: Sequence[str], output: Path, errors: Path) -> Started:
        """Start a verb that appends to two files; submitit keeps its own in the folder."""
        ...

    def continues(self, folder: Path, name: str) -> bool:
        """Whether `start` will find a run of this name that an earlier command has left."""
        ...


def add_flags(parser: argparse.ArgumentParser, runs: str) -> None:
    """Add `--jobs` and `--launcher`.

    Args:
        parser: of a command.
        runs: what the command runs: trainings or trials.
    """
    add = parser.add_argument
    add("--jobs", type=int, default=1, metavar="N", help=f"{runs} at a time, one per core (default: 1)")
    add(
        "--launcher",
        choices=["local", "slurm"],
        default="local",
        help=f"where {runs} take place (default: local)",
    )
    slurm = parser.add_argument_group("--launcher slurm").add_argument
    slurm("--launcher.partition", metavar="NAME", help="partition (default: the cluster's)")
    slurm("--launcher.account", metavar="NAME", help="account (default: the cluster's)")
    slurm(
        "--launcher.time",
        type=int,
        metavar="MINUTES",
        help=f"a longer run is requeued, and goes on (default: {TIME})",
    )
    slurm("--launcher.gpus", type=int, metavar="N", help="GPUs of each job (default: none)")
    slurm("--launcher.cpus", type=int, metavar="N", help="cores of each job (default: the cluster's)")
    slurm(
        "--launcher.memory", metavar="SIZE", help="memory of each job, such as 16G (default: the cluster's)"
    )
    slurm(
        "--launcher.set",
        action="append",
        metavar="NAME=VALUE",
        help="another option of sbatch, such as qos=low or exclusive (repeat it for several)",
    )


def launcher_of(arguments: argparse.Namespace) -> Launcher:
    """Return the launcher that the flags ask for.

    Raises:
        InputError: a flag has a bad value, or SLURM's commands are not there.
    """
    values = {
        name: vars(arguments)[f"launcher.{name}"] for name in ("partition", "account", "time", *NAMES, "set")
    }
    given = {name: value for name, value in values.items() if value is not None}
    check_least(1, {"--jobs": arguments.jobs})
    if arguments.launcher == "local":
        if given:
            raise InputError(
                f"--launcher.{next(iter(given))} is for --launcher slurm; leave it out, or choose slurm"
            )
        from leo_lightning.commands.jobs.local_run import LocalLauncher

        return LocalLauncher()
    check_least(1, {f"--launcher.{name}": given.get(name) for name in ("time", "cpus", "gpus")})
    options: dict[str, Any] = {"requeue": True}
    for word in given.pop("set", []):
        name, equals, value = word.removeprefix("--").partition("=")
        if not name or not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"--launcher.set {word!r}: it must be like qos=low, an option of sbatch")
        options[name] = value if equals else True
    from leo_lightning.commands.jobs.slurm_run import SlurmLauncher

    settings = {"time": TIME, **{NAMES.get(name, name): value for name, value in given.items()}}
    return SlurmLauncher(settings | {"additional_parameters": options})
