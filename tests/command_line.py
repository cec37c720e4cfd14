"""Commands of the command line, run in this process."""

import shlex

from leo_lightning import __main__ as program


def call(command: str) -> int:
    """Run what follows `python train.py` or `python -m leo_lightning`; its exit code.

    A training that is not refused, as it should be, takes one step only.
    """
    words = shlex.split(command)
    if not words or words[0].startswith("-"):
        words = ["fit_test", *words]
    verb, *arguments = words
    if verb not in program.VERBS:
        return program.main([verb])
    short = ["--trainer.max_steps=1", "--trainer.accelerator=cpu"] if verb == "fit" else []
    return program.run(verb, [*short, *arguments])
