"""`python -m benchmarks`: times of training and evaluation here, in units of a naive LEO's training step."""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import processes, report, steps, trainer
from benchmarks.rounds import Row, calls_of_progress, measure
from benchmarks.sizes import FULL, QUICK, Effort, Sizes, save_features
from leo_lightning.allocator import keep_freed_memory
from leo_lightning.cli import quiet


def positive(text: str) -> int:
    """Argument type."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times training and evaluation on random features, on the CPU, beside a naive LEO.",
    )
    result.add_argument("--quick", action="store_true", help="less than a minute, for a rough idea")
    result.add_argument("--threads", type=positive, default=1, help="threads that torch uses (default: 1)")
    result.add_argument("--out", type=Path, metavar="FILE", help="write all numbers there, as JSON")
    return result


def make_rows(root: Path, sizes: Sizes, effort: Effort, threads: int) -> list[Row]:
    """All that is timed; the unit first."""
    features, runs = root / "features", root / "runs"
    runs.mkdir()
    save_features(features, sizes)
    data = steps.features(features, sizes)
    rows = []
    for shot in (1, 5):
        rows += [
            steps.naive_row(f"naive_{shot}shot", shot, data, sizes, effort.budget),
            steps.learner_row(f"learner_{shot}shot", shot, data, sizes, effort.budget),
            trainer.training_row(f"trainer_{shot}shot", shot, features, runs, sizes, effort.train_steps),
        ]
    tests = {
        "test_1shot": (1, False, effort.eval_batches),
        "test_5shot": (5, False, effort.eval_batches),
        "test_1shot_all": (1, True, effort.all_query_batches),
    }
    for name, (shot, all_queries, batches) in tests.items():
        rows.append(trainer.testing_row(name, shot, all_queries, features, runs, sizes, batches))
    rows.append(steps.sampling_row("sampling", data, sizes, effort.budget))
    rows.append(processes.startup_row("startup", threads, effort.startups))
    return rows


def benchmark(sizes: Sizes, effort: Effort, threads: int, out: Path | None) -> None:
    """Measure, print, and write if asked to."""
    quiet()
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    described = report.machine(threads)
    columns = BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    # drawn between measurements only: a thread that draws would be measured, too
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
    with TemporaryDirectory(prefix="leo-benchmarks-") as folder, bar:
        shown = bar.add_task("making features", total=None)

        def progress(what: str) -> None:
            bar.update(shown, description=what, advance=1)
            bar.refresh()

        bar.refresh()
        rows = make_rows(Path(folder), sizes, effort, threads)
        bar.update(shown, total=calls_of_progress(rows, effort.rounds) + 1)
        progress("peak memory of training")
        memory = processes.training_memory(Path(folder) / "features", effort.train_steps, threads)
        found = measure(rows, effort.rounds, progress)
    console = Console()
    console.print(report.table(found, effort.rounds))
    for shot in (1, 5):
        share = report.overhead(found, shot)
        console.print(f"Lightning, loader and logging, {shot}-shot: {share.median:.0%} of a step")
    console.print(f"peak resident memory of 1-shot training: {memory / 2**20:,.0f} MiB")
    console.print(", ".join(f"{key} {value}" for key, value in described.items()), highlight=False)
    if out is not None:
        settings = {**sizes._asdict(), **effort._asdict()}
        part = out.with_name(f".{out.name}.part")
        part.write_text(report.as_json(found, memory, settings, described))
        os.replace(part, out)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 130 if interrupted."""
    options = parser().parse_args(argv)
    if options.out is not None and (options.out.is_dir() or not options.out.absolute().parent.is_dir()):
        parser().error(f"--out {options.out}: name a file in a folder that exists")
    try:
        benchmark(Sizes(), QUICK if options.quick else FULL, options.threads, options.out)
    except (KeyboardInterrupt, SystemExit):  # the Trainer makes an exit of Ctrl-C
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
