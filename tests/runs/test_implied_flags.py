"""What may be left out on the command line."""

from leo_lightning.commands.train import LEOCommand
from leo_lightning.runs.implied_flags import with_defaults

COMMANDS = LEOCommand.subcommands()


def test_defaults_of_the_command_line():
    """Catches `python train.py` doing something else than the quickstart."""
    assert with_defaults([], COMMANDS)[:2] == ["fit_test", "--config"]
    assert with_defaults([], COMMANDS)[2].endswith("quickstart.yaml")
    assert with_defaults(["--config", "x.yaml"], COMMANDS) == ["fit_test", "--config=x.yaml"]
    fit = with_defaults(["fit", "--data.shot=5"], COMMANDS)
    assert fit == ["fit", *with_defaults([], COMMANDS)[1:], "--data.shot=5"]
    assert set(COMMANDS) == {"fit_test", "fit", "validate", "test", "predict"}


def test_flags_win_wherever_the_configuration_stands():
    """Catches a flag in front of --config that the file silently overrides, down to another experiment."""
    typed = ["fit", "--run.name", "mine", "--config", "a.yaml", "-c=b.yaml", "--data.shot=5"]
    spelled = with_defaults(typed, COMMANDS)
    assert spelled == ["fit", "--config=a.yaml", "--config=b.yaml", "--run.name", "mine", "--data.shot=5"]
