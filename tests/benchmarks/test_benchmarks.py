"""The benchmarks: their unit is a LEO, and measuring leaves nothing but numbers. Nothing here is timed."""

import json
import platform
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import floors, large_bank, naive, processes, rounds, steps
from benchmarks import profile as breakdown
from benchmarks.sizes import Effort, Sizes
from leo_lightning.data.episode import Episode
from leo_lightning.data.splits import load_split
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.reference.leo import ReferenceLEO
from tests import parity
from tests.places import FIXTURES

TINY = Sizes(
    tasks=2, query=2, embedding_size=6, num_latents=3, latent_steps=2, finetuning_steps=2,
    eval_tasks=2, pool_tasks=2, classes=(6, 5, 5), images=9, large_classes=7,
)  # fmt: skip
BRIEF = Effort(rounds=2, budget=0.0, train_steps=2, eval_batches=2, all_query_batches=1, startups=1)
ROWS = [
    *("naive_1shot", "learner_1shot", "noise_1shot", "trainer_1shot"),
    *("naive_5shot", "learner_5shot", "noise_5shot", "trainer_5shot", "trainer_disk"),
    *("test_1shot", "test_1shot_all", "test_5shot", "test_5shot_all", "sampling"),
    *("bank_memory", "bank_disk", "growth_B", "growth_Q", "growth_T", "growth_F", "startup"),
]


def test_the_naive_step_is_the_authors():
    """Catches a unit that is fast, or slow, because it computes something else."""
    leo = LEO(6, 3, latent_steps=1, finetuning_steps=2, dropout=0.0, latent_lr=0.5)
    model = naive.reference_of(leo)
    assert (model.latent_steps, model.finetuning_steps, model.dropout) == (1, 2, 0.0)
    assert model.alpha.tolist() == [0.5] * 3
    fixture = parity.Fixture.read(FIXTURES / "leo_train_noclamp_1shot.npz")
    model, episode = fixture.learner(torch.float64, ReferenceLEO), fixture.episode(torch.float64)
    model(episode.support, episode.query, fixture.noise(torch.float64)).loss.backward()
    naive.clip_(model.parameters())
    for name, parameter in parity.variables(model).items():
        clipped = fixture.arrays[f"grad_clipped_{name}"]
        assert parity.difference(parity.theirs(parameter.grad), clipped) <= 1e-9, name


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder where temporary files go; no process is started, and torch keeps its threads."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(processes, "run", lambda *_, **__: "1048576\n")
    scaling = {"one": 100.0, "two": 150.0, "two_apart": 200.0}
    monkeypatch.setattr(command, "weak_scaling", lambda *_: scaling)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield folder
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_everything_is_measured_and_nothing_is_left(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches rows that no longer run, files left behind, and a report that names the machine."""
    monkeypatch.setattr(platform, "node", lambda: "name-of-the-host")
    monkeypatch.setattr(socket, "gethostname", platform.node)
    out = tmp_path / "speed.json"
    command.benchmark(TINY, BRIEF, threads=1, out=out)
    found = json.loads(out.read_text())
    assert list(found["rows"]) == ROWS
    for name, row in found["rows"].items():
        assert len(row["rounds"]["seconds"]) == (1 if name == "startup" else BRIEF.rounds)
        assert all(seconds > 0 for seconds in row["rounds"]["seconds"])
    assert found["rows"]["naive_1shot"]["naive_steps"] == {"median": 1, "q1": 1, "q3": 1}
    assert set(found["peak_resident_bytes"].values()) == {1 << 20}
    assert found["weak_scaling_tasks_per_second"]["two"] == 150.0
    assert found["floors"]["5shot"]["operations"] > found["floors"]["1shot"]["operations"] > 0
    assert found["machine"]["threads"] == 1
    printed = capsys.readouterr().out
    assert all(row["label"] in printed for row in found["rows"].values())
    for secret in ("name-of-the-host", str(tmp_path), str(processes.ROOT)):
        assert secret not in out.read_text() + printed
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.json", "temporary"]


def test_operations_are_those_that_torch_counts():
    """Catches a floor that leaves out, or counts twice, a matrix product of the step."""
    from torch.utils.flop_counter import FlopCounterMode

    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}  # torch leaves it out
    sizes = TINY._replace(embedding_size=24, num_latents=8, latent_steps=3)
    for shot in (1, 2):
        leo = steps.learner(sizes)
        support, query = torch.randn(2, 5, shot, 24), torch.randn(2, 5, 2, 24)
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            leo(Episode(support, query), range(2)).loss.backward()
        assert counter.get_total_flops() == pytest.approx(floors.operations(shot, sizes), rel=0.03)


def test_the_profile_adds_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Catches operations that are counted in two groups, and a profile of nothing."""
    monkeypatch.setattr(breakdown, "Sizes", lambda: TINY)
    monkeypatch.setattr(breakdown, "STEPS", 2)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    breakdown.main(2)
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    *groups, together = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    assert sum(groups) == pytest.approx(together, abs=0.05)
    assert together > 0
    assert sum(map(len, breakdown.GROUPS.values())) == len(set().union(*breakdown.GROUPS.values()))


def test_a_sparse_bank_is_a_feature_file(tmp_path: Path):
    """Catches a bank on disk that is measured without being one."""
    size = large_bank.save_sparse(tmp_path / "large", TINY)
    bank = load_split(tmp_path / "large", "train")
    assert bank.embeddings.shape == (7 * 9, 6)
    assert size > bank.embeddings.numel() * 4


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_cleans_up(
    stop: type[BaseException],
    temporary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Catches features left in /tmp by Ctrl-C, which the Trainer turns into an exit; and half a report."""

    def interrupted(*_: object) -> None:
        assert len(list(temporary.iterdir())) == 1
        raise stop

    monkeypatch.setattr(command, "measure", interrupted)
    monkeypatch.setattr(command, "QUICK", BRIEF)
    monkeypatch.setattr(command, "Sizes", lambda: TINY)
    assert command.main(["--quick", "--out", str(tmp_path / "speed.json")]) == 130
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "speed.json").exists()
    assert capsys.readouterr().err.rstrip().endswith("interrupted")


@pytest.mark.parametrize(
    "arguments", [["--out", "no/such/folder/speed.json"], ["--out", "."], ["--threads=0"]]
)
def test_bad_arguments_are_refused_before_anything_is_measured(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches minutes of measuring for a report that cannot be written."""
    monkeypatch.setattr(command, "benchmark", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as exit:
        command.main(arguments)
    assert exit.value.code == 2
    assert arguments[0].split("=")[0] in capsys.readouterr().err


def test_rows_take_turns_and_ratios_are_paired():
    """Catches rows measured one after the other, and ratios of medians, which a slow minute distorts."""
    order: list[str] = []

    def row(name: str, times: list[float], limit: int | None = None) -> rounds.Row:
        left = iter(times)
        return rounds.Row(name, name, lambda: order.append(name) or next(left), rounds=limit)

    told: list[str] = []
    rows = [row("unit", [9.0, 1.0, 10.0, 2.0]), row("twice", [9.0, 2.0, 20.0, 4.0]), row("once", [5.0], 1)]
    found = rounds.measure(rows, 3, told.append)
    assert order == ["unit", "twice", "unit", "twice", "once", "unit", "twice", "unit", "twice"]
    assert found["twice"].seconds == [2.0, 20.0, 4.0]
    assert found["twice"].ratios == [2.0, 2.0, 2.0]
    assert found["once"].ratios == [5.0]
    assert len(told) == rounds.calls_of_progress(rows, 3) == len(order)


def test_repeated_work_is_divided_by_its_calls(monkeypatch: pytest.MonkeyPatch):
    """Catches times of a batch of calls that pass for the time of one."""
    now = [0.0]
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now[0])
    repeated = rounds.Repeated(lambda: now.__setitem__(0, now[0] + 0.25), budget=2.0)
    assert (repeated(), repeated.calls) == (0.25, 8)
    assert (repeated(), now[0]) == (0.25, 0.25 * (3 + 3 + 8 + 8))


def test_spread():
    """Catches quartiles of the extremes, and a single sample that has none."""
    assert rounds.Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)
    assert rounds.Spread.of([7.0]) == (7.0, 7.0, 7.0)


def test_peak_memory_is_that_of_this_process():
    """Catches pages or kilobytes that pass for bytes."""
    before = processes.peak_resident()
    assert 2**25 < before < 2**40
    held = torch.ones(2**26)  # 256 MiB
    assert processes.peak_resident() >= min(before, held.nbytes)
