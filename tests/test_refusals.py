"""Bad input ends in one line that says what is wrong, where, and what to do. The cases are in refusals.py."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import refusals
from tests.command_line import call
from tests.commands.classify_refusals import NEW_CLASSES
from tests.commands.compare.refusals import COMPARISON
from tests.commands.dashboard_refusals import DASHBOARD
from tests.commands.figures.refusals import FIGURES
from tests.commands.pretrain.refusals import PRETRAINING
from tests.commands.report.refusals import REPORT
from tests.commands.sweep.refusals import SEARCH
from tests.images.extraction.refusals import EXTRACTION
from tests.images.refusals import IMAGES
from tests.places import ROOT
from tests.refusals import Case, World, locked
from tests.tiny_run import files, folders, tiny

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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run. Making it also imports all modules that a command may need."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root) == 0
    return folders(root)[0]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run a command in. Not pytest's, which other users may not enter."""
    with TemporaryDirectory() as name:
        monkeypatch.chdir(name)
        yield Path(name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, subprocess.Popen]]]:
    """Processes of the cases that need their own, with their folders. They run alongside the other tests."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    home = tmp_path_factory.mktemp("home")
    started = {}
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
    """Catches a traceback, a message without the word that matters, and anything left behind."""
    case = SECTIONS[section][name]
    with ExitStack() as stack:
        patches = stack.enter_context(pytest.MonkeyPatch.context())
        case.arrange(World(here, run, patches, stack))
        before = files(here)
        if case.locked is not None:
            stack.enter_context(locked(here, *case.locked))
        code = call(case.command)
    left = {path.relative_to(here) for path in set(files(here)) - set(before)}
    assert_refused(case, code, capsys.readouterr().err, left)


@pytest.mark.parametrize(("section", "name"), IN_PROCESSES)
def test_bad_input_of_a_process_is_one_line(
    section: str, name: str, processes: dict[str, tuple[Path, subprocess.Popen]]
):
    """Catches lines that another library adds to ours, in its threads or at the end of the process."""
    folder, process = processes[name]
    _, stderr = process.communicate(timeout=60)
    left = {path.relative_to(folder) for path in files(folder)}
    assert_refused(SECTIONS[section][name], process.returncode, stderr, left)


def assert_refused(case: Case, code: int, stderr: str, left: set[Path]) -> None:
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert all(part in stderr for part in case.word.split("…")), stderr
    assert code == 2
    assert {path.parts[0] for path in left} <= {case.keeps}
