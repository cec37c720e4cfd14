"""What `python -m leo_lightning report` refuses, for test_refusals.py and docs/errors.md."""

from collections.abc import Callable

from tests.refusals import Case, World, disk_of, finished, folder, text

MANUAL = "see python -m leo_lightning report --help"
LIKE = "like runs/leo/DATE_TIME"
METRICS = "done/metrics.csv: line"
MEND = "restore the file, or move it away"


def spoilt(name: str, content: str | bytes) -> Callable[[World], object]:
    """A finished run, but for one file."""
    return lambda world: [finished(world), text(f"done/{name}", content)(world)]


def metrics(line: str, content: str | bytes) -> Case:
    return Case("report done", f"{METRICS} {line}; {MEND}", spoilt("metrics.csv", content))


REPORT = {
    "no run named": Case("report", "the following arguments are required"),
    "out without a value": Case("report done --out", "argument --out"),
    "no such flag": Case("report done --dark", "--dark"),
    "no such folder": Case("report nowhere", "no such folder"),
    "no run folder": Case(
        "report empty",
        "is no run folder, which holds a config.yaml",
        folder("empty"),
    ),
    "the folder of runs": Case("report .", "is no run folder, which holds a config.yaml", finished),
    "the same run twice": Case("report done done/../done", "is named twice", finished),
    "configuration that is no YAML": Case("report done", "not valid YAML", spoilt("config.yaml", "a: [")),
    "configuration that refers to itself": Case(
        "report done",
        "not valid YAML",
        spoilt("config.yaml", "a: &a [1]\nb: [*a, *a]"),
    ),
    "configuration without end": Case(
        "report done",
        "not valid YAML",
        spoilt("config.yaml", "#" * (2**20 + 1)),
    ),
    "configuration nested without end": Case(
        "report done", "not valid YAML", spoilt("config.yaml", "[" * 5000)
    ),
    "configuration that is no table": Case(
        "report done",
        "holds no table of fields",
        spoilt("config.yaml", "3"),
    ),
    "results that are no JSON": Case("report done", "not valid JSON", spoilt("results.json", "{")),
    "results of something else": Case("report done", "is no result of a test", spoilt("results.json", "[]")),
    "log that is no text": metrics("1: the file is no text", b"\xff\xff\n"),
    "log without steps": metrics("1: has no column 'step'", "a,b\n1,2\n"),
    "log with a column twice": metrics("1: names a column twice", "step,a,a\n1,2,3\n"),
    "log with a line cut short within": metrics("2: has 2 cells in place of 3", "step,a,b\n1,2\n2,3,4\n"),
    "log with a word for a number": metrics("3: 'x' is no number", "step,a\n1,2\n2,x\n"),
    "log with a step that is none": metrics("2: '²' is no whole number", "step,a\n²,2\n"),
    "log with an open quotation mark": metrics("3: …", 'step,a\n1,"2\n2,3\n'),
    "out is no report": Case(
        "report done --out notes.html",
        "notes.html",
        lambda world: [finished(world), text("notes.html", "<html>mine")(world)],
    ),
    "out in no folder": Case(
        "report done --out nowhere/a.html",
        "cannot be written",
        finished,
    ),
    "out is a folder": Case(
        "report done --out done",
        "cannot be written",
        finished,
    ),
    "a run folder of somebody else": Case(
        "report done",
        "cannot be written",
        finished,
        locked=("done", 0o500),
    ),
    "a file of somebody else": Case(
        "report done",
        "Permission denied",
        finished,
        locked=("done/metrics.csv", 0),
    ),
    "full disk": Case(
        "report done",
        "cannot be written",
        disk_of(2**16, finished),
    ),
}
