"""The comparison: train and evaluate what is missing, write the table and the figure."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from leo_lightning.commands.compare import plot, tables
from leo_lightning.commands.compare.entrants import Entrant, digest_of, enter, load_banks
from leo_lightning.commands.compare.evaluation import Examiner, Protocol
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.tables import Entry, duration
from leo_lightning.commands.compare.training import Run, finished_run, replaces, train
from leo_lightning.common.errors import check_known, one_line
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.intervals import half_width
from leo_lightning.data.datamodule import EpisodeDataModule


def compare(plan: Plan, only: Sequence[str] | None = None, draw: bool = True) -> bool:
    """Compare methods, or only some; return whether all succeeded.

    Raises:
        InputError: something in the plan is wrong.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    with claimed_folder(plan.out):
        comparison = _Comparison(plan, only, console)
        comparison.evaluate()
        comparison.write_table()
        if draw and plan.points:
            comparison.write_figure()
    return not any(entry.failed for entry in comparison.entries)


class _Comparison:
    def __init__(self, plan: Plan, only: Sequence[str] | None, console: Console) -> None:
        for label in only or []:
            check_known("--only", label, [method.label for method in plan.methods])
        self.plan = plan
        self.console = console
        banks = load_banks(plan)
        self.features, self.provenance = digest_of(banks), banks["test"].provenance
        self.entrants = [enter(method, plan, self.features) for method in plan.methods]
        self.chosen = [entrant for entrant in self.entrants if not only or entrant.method.label in only]
        self._check_sizes()
        self.entries: list[Entry] = []
        self.examiners: dict[str, Examiner] = {}

    def _check_sizes(self) -> None:
        """Check that the features have enough classes and images for all tasks."""
        plan = self.plan
        if any(one.learner.trained for one in self.chosen):
            EpisodeDataModule(plan.root, plan.way, plan.shot, plan.query, in_memory=False).setup("fit")
        for way, shot in [(plan.way, plan.shot), *plan.points]:
            EpisodeDataModule(plan.root, way, shot, plan.query, in_memory=False).setup("test")

    def evaluate(self) -> None:
        """Train and evaluate all methods; a method that fails leaves the others alone."""
        for entrant in self.entrants:
            label = entrant.method.label
            try:
                entry = self._evaluate(entrant)
            except OSError:
                raise  # a full disk is not the method's fault
            except Exception as error:
                entry = Entry(label, note=f"failed: {one_line(error)}", failed=True)
                self._say(f"{label}: {entry.note}")
            self.entries.append(entry)

    def _evaluate(self, entrant: Entrant) -> Entry:
        label, run = entrant.method.label, None
        if entrant.learner.trained:
            run = finished_run(entrant, self.plan) or self._train(entrant)
            if run is None:
                return Entry(label, note="not trained yet")
        examiner = self.examiners[label] = Examiner(entrant, run, self.plan)
        protocol = Protocol(self.plan.way, self.plan.shot, self.plan.tasks)
        result = examiner.kept(protocol)
        if result is None and entrant in self.chosen:
            with self._working(entrant, "evaluating") as show:
                result = examiner.examine(protocol, show)
            mean, half = 100 * result.accuracy.mean(), 100 * half_width(result.accuracy)
            self._say(f"{self._place(entrant)}: {mean:.2f} ± {half:.2f} %")
        return Entry(label, result, run, "" if result else "not evaluated yet")

    def _train(self, entrant: Entrant) -> Run | None:
        """Train a method if it is chosen."""
        if entrant not in self.chosen:
            return None
        if replaces(entrant, self.plan):
            label = entrant.method.label
            self._say(f"{label}: its configuration or the features have changed, so it is trained anew")
        started = time.monotonic()
        with self._working(entrant, "training") as show:
            train(entrant, self.plan, show)
        took = duration(time.monotonic() - started)
        self._say(f"{self._place(entrant)}: trained to step {self.plan.steps:,} ({took})")
        return finished_run(entrant, self.plan)

    def write_table(self) -> None:
        """Write and print the table of all methods that were evaluated or failed."""
        plan = self.plan
        shown = [entry for entry in self.entries if entry.result or entry.failed]
        machines = dict.fromkeys(entry.result.machine for entry in shown if entry.result)
        source = [self.provenance.get(key, "unknown") for key in ("dataset", "backbone", "crop")]
        source = ", ".join(part for part in source if part not in ("", "unknown")) or "unknown"
        header = (
            f"{plan.way}-way {plan.shot}-shot, {plan.query} queries per class, {plan.tasks:,} test tasks "
            f"(seed {plan.eval_seed}), features: {source} ({self.features[:8]}); "
            f"{' and '.join(machines) or 'nothing measured'}"
        )
        table = tables.rows(shown, plan.reference)
        files = tables.write(table, header, plan.reference, plan.out)
        self._say(f"\n{header}")
        self.console.print(tables.terminal(table, plan.reference, self.console))
        left_out = [f"{e.label} ({e.note})" for e in self.entries if not (e.result or e.failed)]
        notes = tables.footnotes(table) + ([f"left out: {', '.join(left_out)}"] if left_out else [])
        for line in [*notes, *(f"written  {path}" for path in files)]:
            self._say(line)

    def write_figure(self) -> None:
        """Evaluate every chosen method at every point of the figure, and draw what is known."""
        points = []
        for entrant in self.entrants:
            if (examiner := self.examiners.get(entrant.method.label)) is not None:
                points += self._points(entrant, examiner)
        if points:
            for path in plot.write(points, self.plan):
                self._say(f"written  {path}")

    def _points(self, entrant: Entrant, examiner: Examiner) -> Iterator[plot.Point]:
        label = entrant.method.label
        with self._working(entrant, "points of the figure") as show:
            for way, shot in self.plan.points:
                protocol = Protocol(way, shot, self.plan.plot_tasks)
                try:
                    result = examiner.kept(protocol)
                    if result is None and entrant in self.chosen:
                        result = examiner.examine(protocol, show)
                except OSError:
                    raise
                except Exception as error:  # such as a method made for one number of classes
                    note = tables.without_folders(one_line(error))
                    self._say(f"{label}: no point at {way}-way {shot}-shot ({note})")
                    yield plot.Point(label, way, shot, note=note)
                else:
                    if result is not None:
                        mean, half = result.accuracy.mean().item(), half_width(result.accuracy)
                        yield plot.Point(label, way, shot, mean, half)

    def _place(self, entrant: Entrant) -> str:
        return f"[{self.entrants.index(entrant) + 1}/{len(self.entrants)}] {entrant.method.label}"

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _working(self, entrant: Entrant, task: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done to a method; gives a function to show the progress."""
        text = f"{self._place(entrant)}: {task}"
        if not self.console.is_terminal:
            self._say(f"{text} ...")
        started = time.monotonic()
        with self.console.status(escape(text)) as status:
            yield lambda far: status.update(escape(f"{text}, {duration(time.monotonic() - started)}  {far}"))


@contextmanager
def claimed_folder(folder: Path) -> Iterator[None]:
    """Make a folder and keep other comparisons out of it; remove it again if nothing was begun."""
    lock, made = folder / ".lock", not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(lock, f"{folder}: another comparison is at work here; name another folder with --out"):
        try:
            yield
        finally:
            if made and list(folder.iterdir()) == [lock]:
                lock.unlink()
                folder.rmdir()
