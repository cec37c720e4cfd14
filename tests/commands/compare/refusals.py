"""Bad input of `python -m leo_lightning compare`, for test_refusals.py."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_lightning.commands.compare.comparison import claimed_folder
from tests.commands.compare.plans import CENTROID, tiny_leo, write_plan
from tests.refusals import Case, World, text

RUN = "compare --config plan.yaml"


def plan(**fields: Any) -> Callable[[World], object]:
    """A good plan but for some fields."""
    return lambda world: write_plan(world.folder, **({"out": "out"} | fields))


def refused(word: str, **fields: Any) -> Case:
    """A plan that is refused as it is read."""
    return Case(RUN, f"plan.yaml: {word}", plan(**fields))


def of_method(entry: object, label: str = "a") -> dict[str, Any]:
    return {"methods": {label: entry}}


COMPARISON = {
    "no such plan": Case("compare --config nowhere.yaml", "no such file"),
    "plan that is a folder": Case("compare --config .", "is a folder"),
    "broken plan": Case(RUN, "not valid YAML", text("plan.yaml", "methods: [")),
    "plan that is a list": Case(RUN, "holds no table of fields", text("plan.yaml", "[1]")),
    "mistyped field": refused("field stepz is unknown; did you mean steps?", stepz=1),
    "unknown field": refused("field colour is unknown; known are methods", colour=1),
    "no number": refused("steps: …integer", steps="many"),
    "a fraction": refused("steps: …integer", steps=2.5),
    "number too small": refused("way is 1: it must be at least 2", way=1),
    "one task": refused("tasks is 1: it must be at least 2", tasks=1),
    "flag too small": Case(f"{RUN} --steps 0", "steps is 0", plan()),
    "no list": refused("shots: ", shots=5),
    "list of text": refused("shots: …integer", shots=["a"]),
    "list with a number too small": refused("ways is 1: it must be at least 2", ways=[5, 1]),
    "root that is a number": refused("", root=3),
    "no methods": refused("methods: expected a table", methods={}),
    "unknown reference": refused("reference: leo is unknown; known are LEO", reference="leo"),
    "shared files": refused("methods: 'a b'", methods={"a b": CENTROID, "A-B": CENTROID}),
    "label without a letter": refused("methods: '?'", **of_method(CENTROID, "?")),
    "method that is a number": refused("methods.a: expected the path", **of_method(1)),
    "method that is a list with a number": refused("methods.a: expected the", **of_method([CENTROID, 3])),
    "method without a configuration": refused("methods.a: expected the path", **of_method({"set": {}})),
    "mistyped field of a method": refused(
        "field of methods.a: sets is unknown; did you mean set?",
        **of_method({"config": CENTROID, "sets": {}}),
    ),
    "unknown field of a method": refused(
        "field of methods.a: steps is unknown", **of_method({"config": CENTROID, "steps": 1})
    ),
    "method without a file": refused("methods.a: nowhere.yaml: ", **of_method("nowhere.yaml")),
    "method that is a folder": refused("methods.a: .: ", **of_method(".")),
    "method that is a pipe": Case(
        RUN,
        "methods.a: pipe: ",
        lambda world: [plan(**of_method("pipe"))(world), os.mkfifo(world.folder / "pipe")],
    ),
    "broken configuration": Case(
        RUN,
        "methods.a: a.yaml: ",
        lambda world: [plan(**of_method("a.yaml"))(world), text("a.yaml", "[")(world)],
    ),
    "empty configuration": Case(
        RUN,
        "methods.a: a.yaml: ",
        lambda world: [plan(**of_method("a.yaml"))(world), text("a.yaml", "")(world)],
    ),
    "changes that are no table": refused("set: expected a table of field: value", set=1),
    "change that is a table": refused("set.model: expected one value", set={"model": {"learning_rate": 1}}),
    "change of what is the same": refused("set: trainer.max_steps is", set={"trainer.max_steps": 3}),
    "mistyped field of train.py": Case(
        RUN,
        "methods.a",
        plan(**of_method(tiny_leo(**{"model.learning_rat": 1}))),
    ),
    "unknown field of train.py": Case(
        RUN,
        "methods.a",
        plan(**of_method(tiny_leo(batches=1))),
    ),
    "value that no field takes": Case(
        RUN,
        "methods.a",
        plan(**of_method(tiny_leo(**{"model.learner.num_latents": 0}))),
    ),
    "no features": Case(
        RUN,
        "no such folder of features",
        plan(root="nowhere"),
    ),
    "too many ways": Case(RUN, "20 classes are too few for 21-way tasks", plan(ways=[5, 21])),
    "too many classes to train on": Case(RUN, "16 classes are too few for 17-way tasks", plan(way=17)),
    "too many shots": Case(RUN, "200 images, a task needs 201", plan(shots=[196])),
    "mistyped reference": Case(
        f"{RUN} --reference 'nearest centriod'",
        "reference",
        plan(),
    ),
    "mistyped label": Case(
        f"{RUN} --only 'nearest centriod'",
        "--only",
        plan(),
    ),
    "unknown label": Case(f"{RUN} --only LEA", "--only", plan()),
    "folder in use": Case(
        RUN,
        "another comparison is at work here",
        lambda world: [plan()(world), world.stack.enter_context(claimed_folder(Path("out")))],
    ),
    "out is a file": Case(
        RUN,
        "out: File exists",
        lambda world: [plan()(world), text("out", "")(world)],
    ),
    "out below a file": Case(
        f"{RUN} --out plan.yaml/out",
        "plan.yaml/out: Not a directory",
        plan(),
    ),
    "no plan named": Case("compare", "the following arguments are required"),
    "flag without a value": Case("compare --config", "argument --config"),
    "no such flag": Case(f"{RUN} --shot 3", "--shot 3"),
    "a word for a number": Case(f"{RUN} --steps many", "argument --steps"),
}
