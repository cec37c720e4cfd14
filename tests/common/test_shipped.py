"""Configurations that are found from any folder."""

from pathlib import Path

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.common.shipped import CONFIGS, found
from leo_lightning.common.yaml_files import read_table
from tests.tiny_run import main


def test_a_shipped_configuration_is_found_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a command that works in a clone only, for flags and for files that name files."""
    monkeypatch.chdir(tmp_path)
    assert found(Path("configs/methods/maml.yaml")) == CONFIGS / "methods" / "maml.yaml"
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "configs/methods/maml.yaml", "--print_config"])
    assert end.value.code == 0
    assert "leo_lightning.learners.maml.MAML" in capsys.readouterr().out


def test_a_file_of_the_users_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a shipped configuration in place of the one that the user wrote, or instead of a refusal."""
    monkeypatch.chdir(tmp_path)
    mine = Path("configs/quickstart.yaml")
    mine.parent.mkdir()
    mine.write_text("seed_everything: 3\n")
    assert read_table(mine) == {"seed_everything": 3}
    for other in ("quickstart.yaml", "configs/quickstat.yaml", "elsewhere/configs/quickstart.yaml"):
        assert found(Path(other)) == Path(other)
        with pytest.raises(InputError, match=r"no such file; (did you mean|name a YAML file)"):
            read_table(Path(other))
