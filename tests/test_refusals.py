"""Bad input ends in one line: what is wrong, where, what to do. The cases are in refusals.py."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from leo_lightning import cli, dashboard, export, features
from leo_lightning.compare import __main__ as compare
from leo_lightning.figures import __main__ as figures
from leo_lightning.images import __main__ as images
from leo_lightning.pretrain import __main__ as pretrain
from leo_lightning.report import __main__ as report
from leo_lightning.sweep import __main__ as sweep
from tests import refusals
from tests.compare.refusals import COMPARISON
from tests.dashboard_refusals import DASHBOARD
from tests.extraction.refusals import EXTRACTION
from tests.figures.refusals import FIGURES
from tests.images.refusals import IMAGES
from tests.new_classes_refusals import NEW_CLASSES
from tests.pretrain.refusals import PRETRAINING
from tests.refusals import Case, World, locked
from tests.report.refusals import REPORT
from tests.runs import files, folders, tiny
from tests.sweep.refusals import SEARCH

ROOT = Path(__file__).resolve().parents[1]
MANUAL = ROOT / "docs" / "errors.md"
PLACEHOLDERS = re.compile(r"\b(?:PATH|NAME|VALUE|NUMBER|LIST|REASON|URL)\b")
COMMANDS = {
    "features": features.main,
    "compare": compare.main,
    "sweep": sweep.main,
    "dashboard": dashboard.main,
    "figures": figures.main,
    "report": report.main,
    "images": images.main,
    "pretrain": pretrain.main,
    "export": export.main,
}
SECTIONS = refusals.SECTIONS | {
    "Comparison": COMPARISON,
    "Search": SEARCH,
    "Dashboard": DASHBOARD,
    "Figures": FIGURES,
    "Report": REPORT,
    "Images": IMAGES,
    "Pre-training": PRETRAINING,
    "Extraction": EXTRACTION,
    "New classes": NEW_CLASSES,
}
CASES = [(section, name) for section, cases in SECTIONS.items() for name in cases]
IN_PROCESSES = [(section, name) for section, name in CASES if SECTIONS[section][name].environment is not None]
IN_THIS_PROCESS = [case for case in CASES if case not in IN_PROCESSES]


def documented() -> dict[str, dict[str, re.Pattern[str]]]:
    """The lines of docs/errors.md by section, each with the pattern that it stands for."""
    lines: dict[str, dict[str, re.Pattern[str]]] = {}
    section = ""
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif match := re.fullmatch(r"\| .+ \| (`+) ?error: (.+?) ?\1 \|", line):
            parts = map(re.escape, PLACEHOLDERS.split(match[2]))
            lines.setdefault(section, {})[match[2]] = re.compile(".+".join(parts))
    return lines


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run, which has also imported all modules that a command may need."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root) == 0
    return folders(root)[0]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run a command in; not pytest's, which no other user may enter."""
    with TemporaryDirectory() as name:
        monkeypatch.chdir(name)
        yield Path(name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, subprocess.Popen]]]:
    """The cases that need a process of their own, and its folder. They run beside the other tests."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    home = tmp_path_factory.mktemp("home")
    started = {}
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(ROOT)  # where the parent of all trials finds what it imports for them
        importlib.import_module("leo_lightning.sweep.trial")
        forkserver.ensure_running()
    for section, name in IN_PROCESSES:
        folder, case = tmp_path_factory.mktemp("process"), SECTIONS[section][name]
        started[name] = (
            folder,
            subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *shlex.split(case.command)],
                cwd=folder,
                env=inherited | {"HOME": str(home), "NETRC": str(home / "netrc")} | (case.environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
    yield started
    for _, process in started.values():
        with process:
            process.kill()


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(("section", "name"), IN_THIS_PROCESS)
def test_bad_input_is_one_line(
    section: str, name: str, run: Path, here: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a traceback, an unhelpful line, one that the manual lacks, and anything left behind."""
    case = SECTIONS[section][name]
    with ExitStack() as stack:
        patches = stack.enter_context(pytest.MonkeyPatch.context())
        case.arrange(World(here, run, patches, stack))
        before = files(here)
        if case.locked is not None:
            stack.enter_context(locked(here, *case.locked))
        code = call(case.command)
    left = {path.relative_to(here) for path in set(files(here)) - set(before)}
    assert_refused(case, section, code, capsys.readouterr().err, left)


@pytest.mark.parametrize(("section", "name"), IN_PROCESSES)
def test_bad_input_of_a_process_is_one_line(
    section: str, name: str, processes: dict[str, tuple[Path, subprocess.Popen]]
):
    """Catches what another library adds to our line, in its threads or at the end of the process."""
    folder, process = processes[name]
    _, stderr = process.communicate(timeout=60)
    left = {path.relative_to(folder) for path in files(folder)}
    assert_refused(SECTIONS[section][name], section, process.returncode, stderr, left)


def call(command: str) -> int:
    """Run a command; training that is not refused, as it should be, takes one step."""
    first, *rest = shlex.split(command)
    if first in COMMANDS:
        return COMMANDS[first](rest)
    short = ["--trainer.max_steps=1", "--trainer.accelerator=cpu"]
    return cli.main([first, *(short if first == "fit" else []), *rest])


def assert_refused(case: Case, section: str, code: int, stderr: str, left: set[Path]) -> None:
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    said = stderr.removeprefix("error: ").rstrip("\n")
    assert re.fullmatch(".*".join(map(re.escape, case.line.split("…"))), said), said
    assert any(pattern.fullmatch(said) for pattern in documented()[section].values()), f"undocumented: {said}"
    assert code == 2
    assert {path.parts[0] for path in left} <= {case.keeps}


def test_every_line_of_the_manual_is_tested():
    """Catches a line in docs/errors.md that no command gives any more."""
    sections = documented()
    assert list(sections) == list(SECTIONS)
    for section, lines in sections.items():
        given = [case.line for case in SECTIONS[section].values()]
        for line, pattern in lines.items():
            assert any(map(pattern.fullmatch, given)), f"{section}: no case gives `error: {line}`"
