"""Bad input to `python -m leo_lightning report`, for test_refusals.py."""

from collections.abc import Callable

from tests.refusals import Case, World, disk_of, finished, folder, text

CODES = "pictures/codes"


def spoilt(name: str, content: str | bytes) -> Callable[[World], object]:
    """A finished run, but for one file."""
    return lambda world: [finished(world), text(f"done/{name}", content)(world)]


def linked(name: str) -> Callable[[World], object]:
    """A finished run with a link to a file of the user's."""

    def arrange(world: World) -> None:
        path = finished(world) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(world.folder / "secrets")
        (world.folder / "secrets").write_text("password: x\n")

    return arrange


def metrics(word: str, content: str | bytes) -> Case:
    return Case("report done", f"done/metrics.csv: is damaged…{word}", spoilt("metrics.csv", content))


REPORT = {
    "no run named": Case("report", "the following arguments are required"),
    "out without a value": Case("report done --out", "argument --out"),
    "no such flag": Case("report done --dark", "--dark"),
    "no such folder": Case("report nowhere", "no such folder"),
    "no run folder": Case(
        "report empty",
        "holds no config.yaml",
        folder("empty"),
    ),
    "the folder of runs": Case("report .", "holds no config.yaml", finished),
    "the same run twice": Case("report done done/../done", "is named twice", finished),
    "configuration that is not YAML": Case("report done", "not valid YAML", spoilt("config.yaml", "a: [")),
    "configuration that refers to itself": Case(
        "report done",
        "not valid YAML",
        spoilt("config.yaml", "a: &a [*a]"),
    ),
    "configuration without end": Case(
        "report done",
        "not valid YAML",
        spoilt("config.yaml", "#" * (2**20 + 1)),
    ),
    "configuration that is not a table": Case(
        "report done",
        "holds no table of fields",
        spoilt("config.yaml", "3"),
    ),
    "results that are not JSON": Case(
        "report done", "done/results.json: is damaged", spoilt("results.json", "{")
    ),
    "results of something else": Case(
        "report done", "done/results.json: is damaged", spoilt("results.json", "[]")
    ),
    **{
        f"results whose {name} is of another kind": Case(
            "report done", f"done/results.json: is damaged ('{name}' ", spoilt("results.json", content)
        )
        for name, content in (
            ("tasks", '{"tasks": "x"}'),
            ("accuracy", '{"accuracy": [1]}'),
            ("seconds", '{"seconds": null}'),
            ("learner", '{"learner": {}}'),
            ("stages", '{"stages": {"final": [1]}}'),
        )
    },
    "results nested without end": Case(
        "report done", "done/results.json: is damaged", spoilt("results.json", '{"a":' + "[" * 10**5)
    ),
    "settings that are another file": Case(
        "report done", "done/config.yaml: is a link", linked("config.yaml")
    ),
    "a picture that is another file": Case(
        "report done", "step-1.csv: is a link", linked(f"{CODES}/step-1.csv")
    ),
    "log that is not text": metrics("utf-8", b"\xff\xff\n"),
    "log without steps": metrics("no column 'step'", "a,b\n1,2\n"),
    "log with a line cut short within": metrics("line 2", "step,a,b\n1,2\n2,3,4\n"),
    "log with a word for a number": metrics("'x'", "step,a\n1,2\n2,x\n"),
    "log with an open quotation mark": metrics("", 'step,a\n1,"2\n2,3\n'),
    "out is not a report": Case(
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
