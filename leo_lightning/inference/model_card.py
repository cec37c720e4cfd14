"""The model card of a trained model: README.md of its folder and of its page on a hub."""

from collections.abc import Mapping
from typing import Any

import yaml

from leo_lightning.common.errors import printable, without_controls

CARD = """\
---
{front}---

# {name}

{results}

```python
from leo_lightning import LEOClassifier

model = LEOClassifier.from_pretrained("{place}").fit(support_x, support_y)
model.predict(x)
```

`support_x` and `x` are embeddings as they are stored, made like the features of the training. They are
normalised here.

| | |
|---|---|
{table}
"""


def model_card(learner: str, features: Mapping[str, Any], results: Mapping[str, Any], place: str) -> str:
    """Write a card.

    Args:
        learner: name of the method.
        features: record of the features of the training, as in config.json.
        results: content of the run's results.json; {} without a test.
        place: what to load it from.
    """
    data, protocol = results.get("data", {}), results.get("protocol", {})
    name = f"{learner} on {features['provenance'].get('dataset', 'features of unknown origin')}"
    front: dict[str, Any] = {
        "library_name": "leo-lightning",
        "tags": ["few-shot-learning", "meta-learning", learner],
    }
    said, rows = "No results of a test lie beside the checkpoint that this was made of.", {"method": learner}
    if results:
        way, shot, score = protocol["way"], protocol["shot"], 100 * results["accuracy"]
        task = f"{way}-way {shot}-shot"
        said = (
            f"**{score:.2f} ± {100 * results['ci95']:.2f} %** accuracy (95% interval of the mean) on "
            f"{results['tasks']:,} {task} test tasks of {data['dataset']}."
        )
        measured = {"type": "accuracy", "value": round(score, 2), "name": f"accuracy, {task}"}
        where = {"type": data["dataset"], "name": data["dataset"], "split": data.get("split", "test")}
        task_type = {"type": "few-shot-classification", "name": f"few-shot classification, {task}"}
        front["metrics"] = ["accuracy"]
        front["model-index"] = [
            {"name": name, "results": [{"task": task_type, "dataset": where, "metrics": [measured]}]}
        ]
        rows |= {f"protocol: {key}": value for key, value in protocol.items()}
        rows |= {"steps": results["steps"], "seed": results["seed"], "command": f"`{results['command']}`"}
        rows |= {f"note {i}": note for i, note in enumerate(results["notes"], 1)}
        rows |= {f"version: {key}": value for key, value in results["versions"].items()}
    rows |= {"normalisation": features["normalize"], "training classes": len(features["classes"])}
    rows |= {f"features: {key}": value for key, value in features["provenance"].items()}
    return CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        name=printable(name),
        results=printable(said),
        place=place,
        table="\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items()),
    )


def _cell(value: object) -> str:
    """Text that cannot leave its cell."""
    return without_controls(str(value)).replace("|", "\\|").replace("<", "&lt;")
