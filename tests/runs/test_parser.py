"""The flags of a run, and the help about them."""

import pytest

from leo_lightning.commands.train import train_parser


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--model.learner.help"], "--model.learner.kl_weight"),
        (["--data.help", "--run.name=x"], "--data.shot"),
        (["--model.learner.help", "leo_lightning.learners.MAML"], "--model.learner.inner_lr"),
    ],
)
def test_help_about_a_class(flags: list[str], field: str, capsys: pytest.CaptureFixture[str]):
    """Catches the help of an abstract class, which lists nothing, where no class is named."""
    with pytest.raises(SystemExit) as end:
        train_parser("fit").parse_args(flags)
    assert end.value.code in (0, None)
    assert field in capsys.readouterr().out
