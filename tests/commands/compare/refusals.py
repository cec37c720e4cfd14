"""What `python -m leo_lightning compare` refuses, for test_refusals.py and docs/errors.md."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_lightning.commands.compare.comparison import lock_folder
from tests.commands.compare.plans import CENTROID, tiny_leo, write_plan
from tests.refusals import Case, World, text

RUN = "compare --config plan.yaml"
MANUAL = "see python -m leo_lightning compare --help"
OF_A_METHOD = "expected the path of a configuration, a list of them, or a table of config and set"
OTHER_OUT = "name another folder with --out"


def plan(**fields: Any) -> Callable[[World], object]:
    """A good plan but for some fields."""
    return lambda world: write_plan(world.folder, **({"out": "out"} | fields))


def refused(line: str, **fields: Any) -> Case:
    """A plan that is refused as it is read."""
    return Case(RUN, "plan.yaml", plan(**fields))


def of_method(entry: object, label: str = "a") -> dict[str, Any]:
    return {"methods": {label: entry}}


COMPARISON = {
    "no such plan": Case("compare --config nowhere.yaml", "no such file"),
    "plan that is a folder": Case("compare --config .", "is a folder"),
    "broken plan": Case(RUN, "not valid YAML", text("plan.yaml", "methods: [")),
    "plan that is a list": Case(RUN, "holds no table of fields", text("plan.yaml", "[1]")),
    "mistyped field": refused("unknown field stepz; did you mean steps?", stepz=1),
    "unknown field": refused(
        "unknown field colour; known are methods, reference, out, root, way, shot, query, steps, tasks, "
        "eval_seed, shots, ways, plot_tasks, set",
        colour=1,
    ),
    "no number": refused("steps: expected a whole number, got 'many'", steps="many"),
    "truth for a number": refused("way: expected a whole number, got True", way=True),
    "number too small": refused("way is 1: it must be at least 2", way=1),
    "one task": refused("tasks is 1: it must be at least 2", tasks=1),
    "flag too small": Case(f"{RUN} --steps 0", "steps is 0", plan()),
    "no list": refused("shots: expected a list of whole numbers, got 5", shots=5),
    "list of text": refused("shots: expected a whole number, got 'a'", shots=["a"]),
    "list with a number too small": refused("ways is 1: it must be at least 2", ways=[5, 1]),
    "root that is a number": refused("root: expected a folder, got 3", root=3),
    "no methods": refused("methods: expected a table of label: configuration; name at least one", methods={}),
    "unknown reference": refused(
        "reference: no method is called 'leo'; there are LEO, nearest centroid", reference="leo"
    ),
    "shared files": refused(
        "methods: 'a b' and 'A-B' would share files (a-b); give one another label",
        methods={"a b": CENTROID, "A-B": CENTROID},
    ),
    "label without a letter": refused(
        "methods: '?' has no letter or digit; give it another label", **of_method(CENTROID, "?")
    ),
    "method that is a number": refused(f"methods.a: {OF_A_METHOD}", **of_method(1)),
    "method that is a list with a number": refused(f"methods.a: {OF_A_METHOD}", **of_method([CENTROID, 3])),
    "mistyped field of a method": refused(
        "unknown field methods.a.sets; did you mean set?", **of_method({"config": CENTROID, "sets": {}})
    ),
    "unknown field of a method": refused(
        "unknown field methods.a.steps; known are config, set", **of_method({"config": CENTROID, "steps": 1})
    ),
    "method without a file": refused(
        "methods.a: nowhere.yaml: no such file; name an existing one", **of_method("nowhere.yaml")
    ),
    "method that is a folder": refused("methods.a: .: is a folder; name a YAML file", **of_method(".")),
    "method that is a pipe": Case(
        RUN,
        "methods.a",
        lambda world: [plan(**of_method("pipe"))(world), os.mkfifo(world.folder / "pipe")],
    ),
    "broken configuration": Case(
        RUN,
        "methods.a",
        lambda world: [plan(**of_method("a.yaml"))(world), text("a.yaml", "[")(world)],
    ),
    "empty configuration": Case(
        RUN,
        "methods.a",
        lambda world: [plan(**of_method("a.yaml"))(world), text("a.yaml", "")(world)],
    ),
    "changes that are no table": refused("set: expected a table of field: value", set=1),
    "change that is a table": refused(
        "set.model: expected one value, got {'learning_rate': 1}; write whole field names, like "
        "model.learning_rate",
        set={"model": {"learning_rate": 1}},
    ),
    "change of what is the same": refused(
        "set: trainer.max_steps is the same for all methods; set `steps` at the top of the plan",
        set={"trainer.max_steps": 3},
    ),
    "change of what is ours": refused(
        "set: run.name is set by the comparison; leave it out", set={"run.name": "x"}
    ),
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
    "too many shots": Case(
        RUN,
        "a class has 200 images, 196-shot tasks with 5 queries need 201",
        plan(shots=[196]),
    ),
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
        lambda world: [plan()(world), world.stack.enter_context(lock_folder(Path("out")))],
    ),
    "out is a file": Case(
        RUN,
        "cannot be written",
        lambda world: [plan()(world), text("out", "")(world)],
    ),
    "out below a file": Case(
        f"{RUN} --out plan.yaml/out",
        "cannot be written",
        plan(),
    ),
    "no plan named": Case("compare", "the following arguments are required"),
    "flag without a value": Case("compare --config", "argument --config"),
    "no such flag": Case(f"{RUN} --seed 3", "--seed 3"),
    "a word for a number": Case(f"{RUN} --steps many", "argument --steps"),
}
