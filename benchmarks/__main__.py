"""`python -m benchmarks`: times of training and evaluation here, in units of a naive LEO's training step."""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import large_bank, processes, report, steps, trainer
from benchmarks.floors import measure_floors
from benchmarks.rounds import Row, calls_of_progress, measure
from benchmarks.scaling import weak_scaling
from benchmarks.sizes import FULL, QUICK, Effort, Sizes, save_features
from leo_lightning.common.quiet import quiet
from leo_lightning.runs.process import keep_freed_memory


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
    result.add_argument("--quick", action="store_true", help="about a minute, for a rough idea")
    result.add_argument("--threads", type=positive, default=1, help="threads that torch uses (default: 1)")
    result.add_argument("--out", type=Path, metavar="FILE", help="write all numbers there, as JSON")
    return result


def make_rows(root: Path, sizes: Sizes, effort: Effort, threads: int) -> list[Row]:
    """All that is timed; the unit first."""
    features, runs, large = root / "features", root / "runs", root / "large"
    runs.mkdir()
    save_features(features, sizes)
    size = large_bank.save_sparse(large, sizes)
    data = steps.features(features, sizes)
    rows = []
    for shot in (1, 5):
        rows += [
            steps.naive_row(f"naive_{shot}shot", shot, data, sizes, effort.budget),
            steps.learner_row(f"learner_{shot}shot", shot, data, sizes, effort.budget),
            steps.noise_row(f"noise_{shot}shot", shot, data, sizes, effort.budget),
            trainer.training_row(f"trainer_{shot}shot", shot, features, runs, sizes, effort.train_steps),
        ]
    rows.append(
        trainer.training_row("trainer_disk", 1, large, runs, sizes, effort.train_steps, in_memory=False)
    )
    for shot in (1, 5):
        for all_queries, batches in ((False, effort.eval_batches), (True, effort.all_query_batches)):
            name = f"test_{shot}shot" + ("_all" if all_queries else "")
            rows.append(trainer.testing_row(name, shot, all_queries, features, runs, sizes, batches))
    rows.append(steps.sampling_row("sampling", data, sizes, effort.budget))
    on_disk = steps.features(large, sizes, in_memory=False)
    rows += [
        steps.bank_row("bank_memory", "bank in memory", data, sizes, effort.budget),
        steps.bank_row("bank_disk", f"{size / 1e9:.1f} GB on disk", on_disk, sizes, effort.budget),
    ]
    rows += steps.growth_rows(data, sizes, effort.budget)
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
        bar.update(shown, total=calls_of_progress(rows, effort.rounds) + 3)
        features = Path(folder) / "features"
        progress("memory")
        memory = {
            "imports": processes.memory_of("imports", features, effort.train_steps, threads),
            "training_1shot": processes.memory_of("training", features, effort.train_steps, threads),
            "step_20way_10shot": processes.memory_of("20way_10shot", features, 1, threads),
        }
        progress("two processes")
        scaling = weak_scaling(features, Path(folder) / "runs", effort.train_steps, threads)
        progress("this machine's limits")
        limits = measure_floors()
        found = measure(rows, effort.rounds, progress)
    results = report.Results(found, memory, scaling, limits, sizes, described)
    console = Console()
    console.width = max(console.width, 100)
    console.print(report.table(results, effort.rounds))
    console.print(*report.remarks(results), sep="\n", highlight=False)
    if out is not None:
        part = out.with_name(f".{out.name}.part")
        part.write_text(report.as_json(results, effort._asdict()))
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
