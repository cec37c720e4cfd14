"""`train.py`, but Lightning looks all the time, and not every 5 s, whether another process has failed."""

from lightning_fabric.strategies.launchers import subprocess_script

from leo_lightning import __main__ as program


class Impatient(subprocess_script._ChildProcessObserver):
    """Kills the first process as soon as another one has failed."""

    def __init__(self, main_pid: int, child_processes: list) -> None:
        super().__init__(main_pid, child_processes, sleep_period=0.05)


def main(arguments: list[str]) -> int:
    subprocess_script._ChildProcessObserver = Impatient
    return program.main(arguments)
