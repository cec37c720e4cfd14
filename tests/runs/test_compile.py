"""torch.compile: the same numbers, in one graph. In a process of its own, without the tests' type checks."""

import os
import subprocess
import sys
from pathlib import Path

from tests.places import ROOT

PROGRAM = """
import torch
from torch._dynamo.utils import counters
from leo_lightning.data.episode import Episode
from leo_lightning.learners.leo import LEO

torch.manual_seed(0)
sizes = dict(embedding_size=8, num_latents=3, latent_steps=1, finetuning_steps=1, kl_weight=0.1)
eager, compiled = LEO(**sizes), LEO(**sizes)
both = eager, compiled
compiled.load_state_dict(eager.state_dict())
compiled.compile(fullgraph=True, dynamic=False)
for shot, seed in ((2, 1), (2, 2)):
    episode = Episode(torch.randn(2, 3, shot, 8), torch.randn(2, 3, 4, 8))
    losses = [leo.train()(episode, [seed, seed + 9]).loss for leo in both]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    theirs, mine = (torch.autograd.grad(loss, list(leo.parameters())) for loss, leo in zip(losses, both))
    for found, expected in zip(mine, theirs):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
with torch.inference_mode():
    classifiers = [leo.eval().adapt(episode.support).weight for leo in both]
torch.testing.assert_close(classifiers[1], classifiers[0], rtol=1e-4, atol=1e-5)
print(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))
"""


def test_compiled_is_the_same(tmp_path: Path):
    """Catches a graph break, other results, noise that is compiled in, and a compilation for each step."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["2", "0"]  # a graph of training, one of evaluation
