"""The comparison: train and evaluate what is missing, write the table and the figure."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from leo_lightning.commands.compare import plot, tables
from leo_lightning.commands.compare.entrants import Entrant, digest_of, enter, load_banks
from leo_lightning.commands.compare.evaluation import Examiner, Protocol, Result
from leo_lightning.commands.compare.plan import Plan
from leo_lightning.commands.compare.tables import Entry, Trial, duration
from leo_lightning.commands.compare.training import Run, finished_run, job, note_start, replaces, trained
from leo_lightning.commands.jobs.launcher import Launcher
from leo_lightning.commands.jobs.progress import Progress, Row
from leo_lightning.commands.jobs.runner import Ended, Job, Runner
from leo_lightning.common.errors import InputError, check_known, one_line
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.intervals import crossed_half_width, half_width
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.learners.leo import LEO


def compare(
    plan: Plan, launcher: Launcher, jobs: int = 1, only: Sequence[str] | None = None, draw: bool = True
) -> bool:
    """Compare methods, or only some; return whether all succeeded.

    The launcher trains them, so many at a time; they are evaluated here, each when it is trained.

    Raises:
        InputError: something in the plan is wrong.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    with claimed_folder(plan.out):
        comparison = _Comparison(plan, launcher, jobs, only, console)
        comparison.evaluate()
        comparison.write_table()
        if draw and plan.points:
            comparison.write_figure()
    return not any(entry.failures for entry in comparison.entries)


class _Comparison:
    def __init__(
        self, plan: Plan, launcher: Launcher, jobs: int, only: Sequence[str] | None, console: Console
    ) -> None:
        for label in only or []:
            check_known("--only", label, [method.label for method in plan.methods])
        self.plan = plan
        self.console = console
        self.progress = Progress(plan.out / "progress.log", console, "method", "val accuracy")
        self.runner = Runner(launcher, jobs, plan.out, self.progress)
        banks = load_banks(plan)
        self.features, self.provenance = digest_of(banks), banks["test"].provenance
        self.entrants = [one for method in plan.methods for one in enter(method, plan, self.features)]
        self.chosen = [entrant for entrant in self.entrants if not only or entrant.method.label in only]
        self._check_sizes()
        self.entries: list[Entry] = []
        self.examiners: dict[str, Examiner] = {}
        """By the name of the entrant."""

    def _check_sizes(self) -> None:
        """Check that the features have enough classes and images for all tasks."""
        plan = self.plan
        if any(one.learner.trained for one in self.chosen):
            EpisodeDataModule(plan.root, plan.way, plan.shot, plan.query, in_memory=False).setup("fit")
        for way, shot in [(plan.way, plan.shot), *plan.points]:
            EpisodeDataModule(plan.root, way, shot, plan.query, in_memory=False).setup("test")

    def evaluate(self) -> None:
        """Train and evaluate all methods; a method that fails leaves the others alone."""
        waiting = {one.name: one for one in self.chosen if self._needs_training(one)}
        outcomes: dict[str, Trial | str | None] = {}
        with self.progress, self.runner:
            jobs = [self._job(entrant) for entrant in waiting.values()]
            following = iter(jobs)
            over = self.runner.run(lambda: self._started(next(following, None)))
            for entrant in self.entrants:
                if entrant.name not in waiting:
                    outcomes[entrant.name] = self._outcome(entrant)
            for end in over:
                outcomes[end.job.name] = self._outcome(waiting[end.job.name], end)
        for method in self.plan.methods:
            entry = Entry(method.label)
            for entrant in self.entrants:
                if entrant.method is method:
                    entry.transductive = entrant.learner.transductive
                    outcome = outcomes[entrant.name]
                    if isinstance(outcome, Trial):
                        entry.trials.append(outcome)
                    elif outcome is not None:
                        entry.failures.append(outcome)
            self.entries.append(entry)

    def _needs_training(self, entrant: Entrant) -> bool:
        try:
            return entrant.learner.trained and finished_run(entrant, self.plan) is None
        except InputError:  # a damaged checkpoint, of which `_outcome` tells
            return False

    def _job(self, entrant: Entrant) -> Job:
        if replaces(entrant, self.plan):
            self.progress.say(
                f"{entrant.title}: its configuration or the features have changed, so it is trained anew"
            )
        self.progress.rows[entrant.name] = Row(entrant.method.label, entrant.seed, self.plan.steps)
        return job(entrant, self.plan)

    def _started(self, job: Job | None) -> Job | None:
        if job is not None:
            note_start(job)
        return job

    def _outcome(self, entrant: Entrant, end: Ended | None = None) -> Trial | str | None:
        """Evaluate a method with a seed, whose training may just be over, or say why it failed.

        None: it was not chosen, and is not known.
        """
        try:
            run = None
            if end is not None:
                run = trained(entrant, self.plan, end)
                took = duration(end.seconds)
                self.progress.say(f"{self._place(entrant)}: trained to step {run.steps:,} ({took})")
            elif entrant.learner.trained and (run := finished_run(entrant, self.plan)) is None:
                return None
            return self._evaluate(entrant, run)
        except OSError:
            raise  # a full disk is not the method's fault
        except Exception as error:
            outcome = f"{entrant.title}: failed: {one_line(error)}"
            self.progress.say(outcome)
            self._row(entrant).state = "failed"
            return outcome

    def _evaluate(self, entrant: Entrant, run: Run | None) -> Trial | None:
        examiner = self.examiners[entrant.name] = Examiner(entrant, run, self.plan)
        protocol = Protocol(self.plan.way, self.plan.shot, self.plan.tasks)
        result = self._result(examiner, protocol)
        unequal = None
        if result is not None and self.plan.dirichlet:
            unequal = self._result(examiner, protocol._replace(dirichlet=self.plan.dirichlet))
        return None if result is None else Trial(entrant.seed, result, run, unequal)

    def _result(self, examiner: Examiner, protocol: Protocol) -> Result | None:
        """Return what is known, or evaluate a method that is chosen."""
        result, entrant = examiner.kept(protocol), examiner.entrant
        if result is None and entrant in self.chosen:
            queries = ", unequal queries" if protocol.dirichlet else ""
            with self._working(entrant, f"test tasks{queries}") as show:
                result = examiner.examine(protocol, show)
            mean, half = 100 * result.accuracy.mean(), 100 * half_width(result.accuracy)
            self.progress.say(f"{self._place(entrant)}: {mean:.2f} ± {half:.2f} %{queries}")
        return result

    def write_table(self) -> None:
        """Write and print the table of all methods that were evaluated or failed."""
        plan = self.plan
        shown = [entry for entry in self.entries if entry.trials or entry.failures]
        machines = dict.fromkeys(trial.result.machine for entry in shown for trial in entry.trials)
        source = [self.provenance.get(key, "unknown") for key in ("dataset", "backbone", "crop")]
        source = ", ".join(part for part in source if part not in ("", "unknown")) or "unknown"
        header = (
            f"{plan.way}-way {plan.shot}-shot, {plan.query} queries per class, {plan.tasks:,} test tasks "
            f"(seed {plan.eval_seed}), features: {source} ({self.features[:8]}); "
            f"{' and '.join(machines) or 'nothing measured'}"
        )
        table = tables.rows(shown, plan.reference)
        files = tables.write(table, header, plan.reference, plan.out)
        self.progress.say(f"\n{header}")
        self.console.print(tables.terminal(table, plan.reference, self.console))
        left_out = "; ".join(entry.label for entry in self.entries if entry not in shown)
        notes = tables.footnotes(table) + ([f"left out, not evaluated yet: {left_out}"] if left_out else [])
        for line in [*notes, *(f"written  {path}" for path in files)]:
            self.progress.say(line)

    def write_figure(self) -> None:
        """Evaluate every chosen method at every point of the figure, and draw what is known."""
        points = []
        self.progress.rows.clear()
        with self.progress:
            for entry in self.entries:
                entrants = [one for one in self.entrants if one.method.label == entry.label]
                if entry.trials and not entry.transductive:  # they are not ranked with the others
                    points += self._points(
                        entry.label, [one for one in entrants if one.name in self.examiners]
                    )
        if any(entry.transductive for entry in self.entries):
            self.progress.say(
                "figure  without the transductive methods, which see all queries of a task together"
            )
        if points:
            variants = [one.method.label for one in self.entrants if isinstance(one.learner, LEO)]
            for path in plot.write(points, self.plan, set(variants)):
                self.progress.say(f"written  {path}")

    def _points(self, label: str, entrants: list[Entrant]) -> Iterator[plot.Point]:
        """Means over the seeds of a method, at each point."""
        for way, shot in self.plan.points:
            protocol, accuracies = Protocol(way, shot, self.plan.plot_tasks), []
            try:
                for entrant in entrants:
                    examiner = self.examiners[entrant.name]
                    if (result := examiner.kept(protocol)) is None and entrant in self.chosen:
                        with self._working(entrant, f"figure, {way}-way {shot}-shot") as show:
                            result = examiner.examine(protocol, show)
                    if result is not None:
                        accuracies.append(result.accuracy)
            except OSError:
                raise
            except Exception as error:  # such as a method made for one number of classes
                note = tables.without_folders(one_line(error))
                self.progress.say(f"{label}: no point at {way}-way {shot}-shot ({note})")
                yield plot.Point(label, way, shot, note=note)
            else:
                if accuracies:
                    values = torch.stack(accuracies).numpy()
                    yield plot.Point(label, way, shot, values.mean().item(), crossed_half_width(values))

    def _place(self, entrant: Entrant) -> str:
        return f"[{self.entrants.index(entrant) + 1}/{len(self.entrants)}] {entrant.title}"

    def _row(self, entrant: Entrant) -> Row:
        """The row of a method, made if it needs no training."""
        return self.progress.rows.setdefault(entrant.name, Row(entrant.method.label, entrant.seed, 0))

    @contextmanager
    def _working(self, entrant: Entrant, task: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done to a method; gives a function to show how far it is."""
        row = self._row(entrant)
        row.state, row.note = "evaluating", task
        if not self.console.is_terminal:
            self.progress.say(f"{self._place(entrant)}: {task} ...")

        def show(far: str) -> None:
            row.note = f"{task}, {far}"
            self.runner.look()

        try:
            yield show
        finally:
            row.state, row.note = "done", ""


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
