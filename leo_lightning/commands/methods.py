"""`methods`: list the few-shot methods."""

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.program import called
from leo_lightning.common.shipped import CONFIGS
from leo_lightning.learners.catalogue import Method, methods

PREDICTS = {"classes": "classes", "values": "functions", None: "classes or functions"}
END = """\
{0} --config FILE                    trains and tests one as its file says
{0} --model.learner NAME             the same for classes, with its defaults
{0} fit --model.learner.help NAME    lists its fields"""


def main(arguments: Sequence[str]) -> None:
    """Print the methods, each with its configurations."""
    ArgumentParser(
        prog=f"{called()} methods",
        description="List the methods that --model.learner takes, with their configurations.",
    ).parse_args(arguments)
    configs = _configs()
    for kind, group in groupby(sorted(methods(), key=_kind), _kind):
        print(f"{kind}:")
        for method in group:
            mark = "Transductive. " if method.transductive else ""
            print(f"  {method.name:22} {mark}{method.summary}")
            print(*(f"  {'':22} {path}\n" for path in configs.get(method.name, ())), sep="", end="")
        print()
    print(END.format(called()))


def _kind(method: Method) -> str:
    return f"{'Trained' if method.trained else 'Without training'}, for {PREDICTS[method.predicts]}"


def _configs() -> dict[str, list[str]]:
    """Configurations by method: those in configs/methods, else the first one that names it."""
    found: dict[str, list[str]] = {}
    own = sorted(CONFIGS.glob("methods/*.yaml"))
    first = [CONFIGS / "quickstart.yaml", CONFIGS / "leo.yaml"]
    for path in [*own, *first, *sorted(CONFIGS.glob("*.yaml"))]:
        text = path.read_text(encoding="utf-8")
        named = re.search(r"^  learner:\n +class_path: \S+\.(\w+)$", text, re.MULTILINE)
        if named and (path in own or named[1] not in found):
            found.setdefault(named[1], []).append(str(Path("configs", path.relative_to(CONFIGS))))
    return found
