"""README, ARCHITECTURE and docs/: files, links and commands that they name exist."""

import importlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

import nbformat
import pytest

from leo_lightning.__main__ import VERBS, run
from leo_lightning.data.table_data import TableDataModule
from tests.places import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PROGRAM = r"(?:python train\.py|python -m leo_lightning|^leo-lightning)(?: (.*))?$"
TOP = ("leo_lightning/", "configs/", "docs/", "tests/", "examples/", "notebooks/", "benchmarks/")


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=nbformat.NO_CONVERT).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[list[str]]:
    """The words after the program of all commands in a text: verb, then flags."""
    joined = re.sub(r"\\\n[ #]*", " ", text)
    for line in joined.splitlines():
        for part in re.split(r"[`;]| {3,}# |\t", line):
            if command := re.search(PROGRAM, part.strip()):
                words = shlex.split((command[1] or "").partition(" # ")[0])
                yield words if words and not words[0].startswith("-") else ["fit_test", *words]


def texts(*without: str) -> dict[str, str]:
    """Documents by name, notebooks too; the comments of all configurations and examples as one each."""
    paths = [path for path in [*DOCUMENTS, *NOTEBOOKS] if path.name not in without]
    folders = {"configs": ROOT.glob("configs/**/*.yaml"), "examples": ROOT.glob("examples/*.*")}
    joined = {name: "\n".join(map(text_of, sorted(files))) for name, files in folders.items()}
    return {path.name: text_of(path) for path in paths} | joined


# The changelog keeps the names of its time, and test_errors_page.py runs the mistakes of errors.md.
CURRENT, CORRECT = texts("CHANGELOG.md"), texts("CHANGELOG.md", "errors.md")


@cache
def help_of(*words: str) -> str:
    """The text that `VERB --help` prints."""
    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        run(words[0], [*words[1:], "--help"])
    return out.getvalue()


@cache
def source_of_learners() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("leo_lightning/learners/**/*.py"))


def test_commands_are_found():
    """Catches a form of command that these tests overlook."""
    text = "Or `python train.py`:\npython -m leo_lightning sweep --config a \\\n    --trials 3    # more\n"
    assert list(commands(text)) == [["fit_test"], ["sweep", "--config", "a", "--trials", "3"]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    """Catches a page that was renamed, a picture that is gone, and a heading that was reworded."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("text", CURRENT.values(), ids=CURRENT)
def test_named_files_and_classes_exist(text: str):
    """Catches the old path of a module that moved."""
    for name in re.findall(rf"(?<![\w/.])((?:{'|'.join(TOP)})[\w./-]*\w)", text):
        assert (ROOT / name).exists() or "." not in Path(name).name, name
    for name in re.findall(r"\b(leo_lightning(?:\.\w+)+)\b", text):
        module, _, attribute = name.rpartition(".")
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
            continue
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("text", CORRECT.values(), ids=CORRECT)
def test_commands_are_understood(text: str):
    """Catches a verb, a flag or a configuration that does not exist (any more)."""
    for verb, *words in commands(text):
        if verb == "VERB":
            continue
        assert verb in VERBS, verb
        nested = verb in ("features", "images", "pretrain", "figures") and words and words[0].islower()
        known = help_of(verb, words[0]) if nested else help_of(verb)
        if "configs/regression_table.yaml" in words:
            known += " ".join(f"--data.{name}" for name in inspect.signature(TableDataModule).parameters)
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if flag.startswith("--model.learner.") and not flag.endswith(".help"):  # of any method
                assert re.search(rf"\b{flag.rpartition('.')[2]}\b", source_of_learners()), flag
            elif ".init_args." not in flag and not flag.startswith("--trainer.logger."):  # of any logger
                assert re.search(rf"{re.escape(flag)}\b", known) or flag == "--help", (verb, flag)
        for word in words:
            name = word.rpartition("=")[2]
            assert not name.startswith("configs/") or (ROOT / name).is_file(), name


def test_the_architecture_names_what_is_there():
    """Catches a file that moved, and a constant or method that was renamed, in the table of changes."""
    for line in text_of(ROOT / "ARCHITECTURE.md").splitlines():
        names = re.findall(r"`([^`\s]+)`", line.partition("|")[2].partition("|")[2])
        paths = [
            next(filter(Path.exists, (ROOT / name, ROOT / "leo_lightning" / name)), None)
            for name in names
            if "/" in name or name.endswith(".py")
        ]
        assert None not in paths, line
        content = "".join(path.read_text(encoding="utf-8") for path in paths if path and path.is_file())
        for name in names:
            assert not content or not name.isidentifier() or name in content, (line, name)
