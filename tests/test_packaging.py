"""What is installed: requirements, and the wheel in an environment of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.places import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements(name: str) -> dict[str, Requirement]:
    """The lines of a requirements file, the last one of each package."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in parsed}


def test_pyproject_and_requirements_agree() -> None:
    """Catches a dependency or a bound that only one of the two files has."""
    listed = requirements("requirements.txt")
    by_marker = {name for name, requirement in listed.items() if requirement.marker}
    assert by_marker == {"learn2learn", "qpth"}
    extra = PROJECT["project"]["optional-dependencies"]["learn2learn"]
    declared = [*PROJECT["project"]["dependencies"], *extra]
    assert {str(r) for n, r in listed.items() if n not in by_marker} == {
        str(Requirement(line)) for line in declared if line not in extra
    }
    assert str(Requirement(*extra).specifier) == str(listed["learn2learn"].specifier)


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        ("requirements.lock", [*PROJECT["project"]["dependencies"], "learn2learn==0.2.0"]),
        ("requirements-dev.lock", PROJECT["dependency-groups"]["dev"]),
    ],
)
def test_the_lock_holds_what_is_declared(lock: str, declared: list[str]) -> None:
    """Catches a lock that was not written anew, a withdrawn release, and the pin that holds NumPy below 2."""
    locked = requirements(lock)
    for line in declared:
        requirement = Requirement(line)
        (version,) = locked[requirement.name].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), line
    assert not {"qpth", "gsutil"} & locked.keys()
    assert not re.search("://|--", (ROOT / lock).read_text())


def test_both_locks_agree() -> None:
    """Catches tools for the tests that replace a package which a run uses."""
    run, tools = (
        {line.partition(" ;")[0] for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    names = {line.partition("==")[0] for line in run}
    assert {line for line in tools if line.partition("==")[0] in names} <= run


@pytest.mark.slow
def test_the_wheel_works_elsewhere(tmp_path: Path) -> None:
    """Catches a wheel without its command, configurations, data, types or report, and a foreign commit.

    It is installed inside a repository of the user's, beside the packages of this environment.
    """
    source, work = tmp_path / "source", tmp_path / "work"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True)
    shutil.rmtree(source)
    (built,) = tmp_path.glob("leo_lightning-*.whl")

    work.mkdir()
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q"], cwd=work, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "mine"], cwd=work, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=work, check=True)
    (site,) = (work / "env" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = work / "env" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(built)], check=True
    )
    assert (site / "leo_lightning" / "py.typed").is_file()

    def run(*words: str) -> str:
        environment = {**os.environ, "PATH": f"{work / 'env' / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": ""}
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("leo-lightning", "--trainer.max_steps=4", "--data.test_tasks=20", "--data.val_tasks=20")
    (folder,) = (work / "runs" / "quickstart").glob("*/")
    results = json.loads((folder / "results.json").read_text())
    assert (results["commit"], results["tasks"]) == (None, 20)
    assert results["command"].startswith("leo-lightning --trainer")
    commands = said.partition("\nnext\n")[2].strip().splitlines()
    assert [words.split()[1] for words in commands] == ["test", "predict", "report"]
    for command in commands:
        run(*command.split(), *(["--data.test_tasks=20"] if " test " in command else []))
    method = run("leo-lightning", "fit", "--config=configs/methods/maml.yaml", "--print_config")
    assert "leo_lightning.learners.maml.MAML" in method
    plan = ["--config=configs/compare/quickstart.yaml", "--steps=2", "--tasks=20", "--no-plot"]
    assert "LEO" in run("leo-lightning", "compare", *plan, "--only=LEO")
