"""The page: what is read of the runs, put into the template beside this file."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from leo_lightning.commands.report import charts, outcome, pictures, settings
from leo_lightning.commands.report.run_folder import RunFolder

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="leo-lightning report">'
"""By this a page is known as ours, and may be written over."""


def is_report(path: Path) -> bool:
    """Whether a file is a page that this command has written."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)


def render(runs: Sequence[RunFolder], now: float) -> str:
    """The page.

    Args:
        runs: at least one.
        now: when they were read, seconds since 1970.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")]
    shown, score = charts.groups(runs), charts.score_chart(runs)
    tasks = charts.task_chart(runs)
    places = [score, tasks, *(chart for _, group in shown for chart in group)]
    placed = {id(chart): f"chart-{i}" for i, chart in enumerate(places) if chart}
    config, known = [run.config for run in runs], settings.defaults(runs[0].config)
    return environment.get_template("page.html.jinja").render(
        title=", ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        written=datetime.fromtimestamp(now).strftime("%Y-%m-%d %H:%M"),
        generator=Markup(GENERATOR),
        policy=_policy(scripts),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        runs=runs,
        lines=outcome.outcomes(runs),
        stages=outcome.stages(runs),
        warnings=outcome.warnings(runs),
        protocol=outcome.protocol,
        colours=[charts.colour(i) for i in range(len(runs))],
        dashes=[charts.dash(i) for i in range(len(runs))],
        score=score,
        groups=shown,
        tasks=tasks,
        place=lambda chart: placed[id(chart)],
        charts=Markup(charts.as_json((placed[id(chart)], chart) for chart in places if chart)),
        most_points=charts.MOST_POINTS if charts.long(runs) else None,
        gaps=charts.gaps(runs),
        albums=list(dict.fromkeys(name for run in runs for name in run.albums)),
        most_pictures=pictures.MOST,
        settings=settings.table(config, known),
        histories=[(run, _history(run)) for run in runs if run.earlier],
        facts=settings.table([_facts(run.results) for run in runs if run.results]),
        commands=[(run, _commands(run)) for run in runs],
    )


def _policy(scripts: Sequence[str]) -> str:
    """What the page may do: run its own scripts, and fetch nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _facts(results: dict[str, Any]) -> dict[str, Any]:
    """Of a result, what says where it comes from."""
    kept = ("data", "seed", "eval_seed", "steps", "commit", "versions", "device")
    return {key: results[key] for key in kept if key in results}


def _history(run: RunFolder) -> list[tuple[int, list[settings.Row]]]:
    """What was changed as it was resumed, with the step."""
    following = [config for _, config in run.earlier[1:]] + [run.config]
    return [
        (step, settings.changes(before, after))
        for (step, before), after in zip(run.earlier, following, strict=True)
    ]


def _commands(run: RunFolder) -> list[tuple[str, str]]:
    """How to do it again: what for, and the command."""
    ours = settings.trains_learner(run.config)
    program = ["python", "train.py"] if ours else ["python", "-m", "leo_lightning.commands.pretrain", "fit"]
    found = []
    if isinstance(typed := run.results.get("command"), str):
        found.append(("As it was typed", typed))
    if run.trained or not run.results:
        replay = [*program, "--config", str(run.folder / "config.yaml")]
        as_what = "With the settings that it ended with" if run.earlier else "With all settings as they were"
        found.append((as_what, shlex.join(replay)))
    last = run.folder / "checkpoints" / "last.ckpt"
    if not run.state.finished and last.is_file():
        found.append(("Go on from its last checkpoint", shlex.join([*program, "--ckpt_path", str(last)])))
    return found
