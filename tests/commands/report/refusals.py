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
    "no run named": Case("report", f"the following arguments are required: RUN_DIR; {MANUAL}"),
    "out without a value": Case("report done --out", f"argument --out: expected one argument; {MANUAL}"),
    "no such flag": Case("report done --dark", f"unrecognized arguments: --dark; {MANUAL}"),
    "no such folder": Case("report nowhere", f"nowhere: no such folder; name a run folder, {LIKE}"),
    "no run folder": Case(
        "report empty",
        f"empty: is no run folder, which holds a config.yaml; name one, {LIKE}",
        folder("empty"),
    ),
    "the folder of runs": Case(
        "report .", ".: is no run folder, which holds a config.yaml; name one, like done", finished
    ),
    "the same run twice": Case(
        "report done done/../done", "done/../done: is named twice; name each run once", finished
    ),
    "configuration that is no YAML": Case(
        "report done", "done/config.yaml: not valid YAML (…); mend it", spoilt("config.yaml", "a: [")
    ),
    "configuration that refers to itself": Case(
        "report done",
        "done/config.yaml: not valid YAML (it refers to itself); mend it",
        spoilt("config.yaml", "a: &a [1]\nb: [*a, *a]"),
    ),
    "configuration without end": Case(
        "report done",
        "done/config.yaml: not valid YAML (it is longer than 1048576 characters); mend it",
        spoilt("config.yaml", "#" * (2**20 + 1)),
    ),
    "configuration nested without end": Case(
        "report done", "done/config.yaml: not valid YAML (…); mend it", spoilt("config.yaml", "[" * 5000)
    ),
    "configuration that is no table": Case(
        "report done",
        "done/config.yaml: holds no table of fields; restore the file",
        spoilt("config.yaml", "3"),
    ),
    "results that are no JSON": Case(
        "report done", "done/results.json: not valid JSON (…); test again", spoilt("results.json", "{")
    ),
    "results of something else": Case(
        "report done", "done/results.json: is no result of a test; test again", spoilt("results.json", "[]")
    ),
    "log that is no text": metrics("1: the file is no text", b"\xff\xff\n"),
    "log without steps": metrics("1: has no column 'step'", "a,b\n1,2\n"),
    "log with a column twice": metrics("1: names a column twice", "step,a,a\n1,2,3\n"),
    "log with a line cut short within": metrics("2: has 2 cells in place of 3", "step,a,b\n1,2\n2,3,4\n"),
    "log with a word for a number": metrics("3: 'x' is no number", "step,a\n1,2\n2,x\n"),
    "log with a step that is none": metrics("2: '²' is no whole number", "step,a\n²,2\n"),
    "log with an open quotation mark": metrics("3: …", 'step,a\n1,"2\n2,3\n'),
    "out is no report": Case(
        "report done --out notes.html",
        "notes.html: is there and no report of this command; name another file with --out",
        lambda world: [finished(world), text("notes.html", "<html>mine")(world)],
    ),
    "out in no folder": Case(
        "report done --out nowhere/a.html",
        "nowhere/a.html: cannot be written (No such file or directory); name another place with --out",
        finished,
    ),
    "out is a folder": Case(
        "report done --out done",
        "done: cannot be written (Is a directory); name another place with --out",
        finished,
    ),
    "a run folder of somebody else": Case(
        "report done",
        "done/report.html: cannot be written (Permission denied); name another place with --out",
        finished,
        locked=("done", 0o500),
    ),
    "a file of somebody else": Case(
        "report done",
        "done/metrics.csv: Permission denied; name another place, or ask for the rights",
        finished,
        locked=("done/metrics.csv", 0),
    ),
    "full disk": Case(
        "report done",
        "done/report.html: cannot be written (File too large); make room or mend the permissions. What was "
        "there before is intact",
        disk_of(2**16, finished),
    ),
}
