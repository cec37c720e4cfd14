"""Configurations that come with the package, so that commands work from any folder."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir())
"""Inside the package in a wheel, beside it in a clone."""


def found(path: Path) -> Path:
    """Return a path itself if it exists, else the shipped configuration of this name, else the path itself.

    >>> found(Path("configs/quickstart.yaml")).is_file()  # in any folder
    True
    """
    if path.exists() or path.parts[:1] != ("configs",):
        return path
    shipped = CONFIGS.joinpath(*path.parts[1:])
    return shipped if shipped.is_file() else path


def shipped() -> list[str]:
    """Return the names of all configurations that come with the package."""
    return sorted(str(Path("configs", path.relative_to(CONFIGS))) for path in CONFIGS.rglob("*.yaml"))
