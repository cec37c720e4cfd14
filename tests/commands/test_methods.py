"""`methods` lists the few-shot methods."""

import re
import subprocess
import sys

import pytest

from leo_lightning.commands.methods import main
from leo_lightning.learners.catalogue import methods
from tests.places import ROOT


def test_it_lists_methods_with_their_configurations(capsys: pytest.CaptureFixture[str]):
    """Catches a method or a configuration that nobody would find, and one under another method."""
    main([])
    printed = capsys.readouterr().out
    names, words = re.findall(r"^  (\w+) ", printed, re.MULTILINE), printed.split()
    for method in methods():
        assert names.count(method.name) == 1
    for path in ROOT.glob("configs/methods/*.yaml"):
        assert words.count(f"configs/methods/{path.name}") == 1
    assert re.search(r"^  GaussianProcess .*\n +configs/regression_gaussian_process.yaml$", printed, re.M)
    assert re.search(
        r"^  MAML .*\n +configs/methods/fomaml.yaml\n +configs/methods/maml.yaml$", printed, re.M
    )
    assert re.search(r"^  BDCSPN +Transductive\. Cosines ", printed, re.M)
    assert printed.count("Transductive. ") == sum(method.transductive for method in methods())


def test_it_needs_no_torch():
    """Catches a list that takes the seconds of torch."""
    program = (
        "import sys; from leo_lightning.__main__ import main; assert main(['methods']) == 0; "
        "assert not {'torch', 'pytorch_lightning', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
