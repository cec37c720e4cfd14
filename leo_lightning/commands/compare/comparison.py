"""The comparison: train and evaluate what is not done yet, write the table and the figure."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from leo_lightning.commands.compare import tables
from leo_lightning.commands.compare.entrants import Entrant, banks_of, check_sizes, digest_of, enter
from leo_lightning.commands.compare.evaluation import Examiner, Protocol, Result
from leo_lightning.commands.compare.plan import Plan, unknown_label
from leo_lightning.commands.compare.plot import Point
from leo_lightning.commands.compare.plot import write as write_plot
from leo_lightning.commands.compare.statistics import interval
from leo_lightning.commands.compare.tables import Entry, duration
from leo_lightning.commands.compare.training import Run, TrainingFailed, finished_run, replaces, train
from leo_lightning.common.errors import InputError, one_line


class Comparison:
    """One comparison at work.

    Args:
        plan: what is compared.
        only: labels of the methods to train and evaluate; None for all.
        console: where it tells how it goes.
        lock: file descriptor of the folder's lock.
    """

    def __init__(self, plan: Plan, only: Sequence[str] | None, console: Console, lock: int) -> None:
        self.plan = plan
        self.console = console
        self.lock = lock
        labels = [method.label for method in plan.methods]
        for label in only or []:
            if label not in labels:
                raise InputError(f"--only: {unknown_label(label, labels)}")
        banks = banks_of(plan)
        self.features = digest_of(banks)
        self.dataset = _described(banks["test"].provenance)
        self.entrants = [enter(method, plan, self.features) for method in plan.methods]
        self.chosen = {label for label in labels if not only or label in only}
        training = any(e.learner.trained for e in self.entrants if e.method.label in self.chosen)
        check_sizes(plan, banks, training)
        self.failed = False

    def entries(self) -> tuple[list[Entry], dict[str, Examiner]]:
        """Train and evaluate; what the table is made of, and who can evaluate more."""
        protocol = Protocol(self.plan.way, self.plan.shot, self.plan.tasks)
        entries, examiners = [], {}
        for number, entrant in enumerate(self.entrants, start=1):
            label = entrant.method.label
            try:
                run = self._trained(entrant, number)
                if run is None and entrant.learner.trained:
                    entries.append(Entry(label, note="not trained yet"))
                    continue
                examiner = Examiner(entrant, run, self.plan, self.features)
                result = examiner.kept(protocol)
                if result is None and label in self.chosen:
                    with self._working(f"{self._place(number)} {label}: evaluating") as show:
                        result = examiner.examine(protocol, show)
                    accuracy = interval(result.accuracy)
                    shown = f"{100 * accuracy.mean:.2f} ± {100 * accuracy.half:.2f} %"
                    self.say(f"{self._place(number)} {label}: {shown}")
                entries.append(Entry(label, result, run, "" if result else "not evaluated yet"))
                examiners[label] = examiner
            except TrainingFailed as error:
                log = self.plan.log(entrant.method)
                self._fail(entries, label, f"{error} (see {log.relative_to(self.plan.out)})")
            except OSError:
                raise  # a full disk is no method's fault
            except Exception as error:  # of any kind: other methods do not suffer from it
                self._fail(entries, label, one_line(error))
        return entries, examiners

    def _trained(self, entrant: Entrant, number: int) -> Run | None:
        """The method's run, which is made if there is none and the method is chosen."""
        if not entrant.learner.trained:
            return None
        run, label = finished_run(entrant, self.plan), entrant.method.label
        if run is not None or label not in self.chosen:
            return run
        if replaces(entrant, self.plan):
            self.say(f"{label}: its configuration or the features have changed, so it is trained anew")
        started = time.monotonic()
        with self._working(f"{self._place(number)} {label}: training") as show:
            train(entrant, self.plan, self.lock, show)
        took = duration(time.monotonic() - started)
        self.say(f"{self._place(number)} {label}: trained to step {self.plan.steps:,} ({took})")
        return finished_run(entrant, self.plan)

    def points(self, examiners: dict[str, Examiner]) -> list[Point]:
        """Evaluate every method at every point of the figure; where one cannot be, the point says why."""
        found = []
        for number, entrant in enumerate(self.entrants, start=1):
            label = entrant.method.label
            if label not in examiners:
                continue
            protocols = [Protocol(way, shot, self.plan.plot_tasks) for way, shot in self.plan.points]
            kept = [examiners[label].kept(protocol) for protocol in protocols]
            if None not in kept or label not in self.chosen:
                found += [
                    _point(label, p, result) for p, result in zip(protocols, kept, strict=True) if result
                ]
                continue
            with self._working(f"{self._place(number)} {label}: evaluating for the figure") as show:
                for protocol, result in zip(protocols, kept, strict=True):
                    found.append(self._point(examiners[label], label, protocol, result, show))
        return found

    def _point(
        self,
        examiner: Examiner,
        label: str,
        protocol: Protocol,
        kept: Result | None,
        show: Callable[[str], None],
    ) -> Point:
        where = f"{protocol.way}-way {protocol.shot}-shot"
        try:
            result = kept or examiner.examine(protocol, lambda far: show(f"{where}, {far}"))
        except OSError:
            raise
        except Exception as error:  # as a method that is made for one number of classes
            note = tables.without_folders(one_line(error))
            self.say(f"{label}: no point at {where} ({note})")
            return Point(label, protocol.way, protocol.shot, None, note)
        return _point(label, protocol, result)

    def header(self, entries: Sequence[Entry]) -> str:
        """The line above the table."""
        plan = self.plan
        machines = dict.fromkeys(entry.result.machine for entry in entries if entry.result is not None)
        return (
            f"{plan.way}-way {plan.shot}-shot, {plan.query} queries per class, {plan.tasks:,} test tasks "
            f"(seed {plan.eval_seed}), features: {self.dataset} ({self.features[:8]}); "
            f"{' and '.join(machines) or 'nothing measured'}"
        )

    def _fail(self, entries: list[Entry], label: str, reason: str) -> None:
        self.failed = True
        entries.append(Entry(label, note=f"failed: {reason}"))
        self.say(f"{label}: failed: {reason}")

    def _place(self, number: int) -> str:
        return f"[{number}/{len(self.entrants)}]"

    def say(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show what is being done; gives a function to say how far it is."""
        if not self.console.is_terminal:
            self.say(f"{what} ...")
        started = time.monotonic()
        with self.console.status(escape(what)) as status:
            yield lambda far: status.update(escape(f"{what}, {duration(time.monotonic() - started)}  {far}"))


def compare(plan: Plan, only: Sequence[str] | None = None, plot: bool = True) -> bool:
    """Compare methods.

    Args:
        plan: what is compared.
        only: labels of the methods to train and evaluate; None for all.
        plot: whether to draw the figure.

    Returns:
        Whether all went well.

    Raises:
        InputError: something in the plan is wrong.
        Interrupted: a signal came while a method was trained.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    with lock_folder(plan.out) as lock:
        comparison = Comparison(plan, only, console, lock)
        entries, examiners = comparison.entries()
        shown = [entry for entry in entries if entry.result or entry.note.startswith("failed")]
        header, rows = comparison.header(shown), tables.rows(shown, plan.reference)
        files = tables.write(rows, header, plan.reference, plan.out)
        comparison.say(f"\n{header}")
        console.print(tables.terminal(rows, plan.reference, console))
        for note in tables.footnotes(rows):
            comparison.say(note)
        missing = [f"{entry.label} ({entry.note})" for entry in entries if entry not in shown]
        if missing:
            comparison.say(f"left out: {', '.join(missing)}")
        if plot and plan.points and (points := comparison.points(examiners)):
            files += write_plot(points, plan)
        for path in files:
            comparison.say(f"written  {path}")
    return not comparison.failed


@contextmanager
def lock_folder(folder: Path) -> Iterator[int]:
    """Keep other comparisons out of a folder, also while a child of this one outlives it.

    Raises:
        InputError: another one is at work there, or nothing can be written there.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name another folder with --out"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    except BlockingIOError:
        raise InputError(
            f"{folder}: another comparison is at work here; wait for its end, or name another folder with "
            "--out"
        ) from None
    finally:
        os.close(file)
        if made and [path.name for path in folder.iterdir()] == [".lock"]:  # nothing has begun
            (folder / ".lock").unlink()
            folder.rmdir()


def _point(label: str, protocol: Protocol, result: Result) -> Point:
    return Point(label, protocol.way, protocol.shot, interval(result.accuracy))


def _described(provenance: dict[str, str]) -> str:
    parts = (provenance.get(key) for key in ("dataset", "backbone", "crop"))
    return ", ".join(part for part in parts if part and part != "unknown") or "unknown"
