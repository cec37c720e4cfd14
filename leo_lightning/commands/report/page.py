"""The page: data of the runs, put into the template beside this file."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from leo_lightning.commands.report import charts, outcome, pictures, settings
from leo_lightning.commands.report.run_folder import RunFolder
from leo_lightning.common.program import called
from leo_lightning.runs.folder import CONFIG

HERE = Path(__file__).parent
GENERATOR = '<meta name="generator" content="leo-lightning report">'
"""Marks a page as ours, which may be overwritten."""
FACTS = ("data", "seed", "eval_seed", "steps", "commit", "versions", "device")  # origin of a result


def is_report(path: Path) -> bool:
    """Whether a file was written by this command."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)


def render(runs: Sequence[RunFolder]) -> str:
    """The page of one or more runs."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")]
    groups, score = charts.groups(runs), charts.score_chart(runs)
    drawn = [chart for _, group in groups for chart in group] + ([score] if score else [])
    places = {id(chart): f"chart-{i}" for i, chart in enumerate(drawn)}
    configs, known = [run.config for run in runs], settings.defaults(runs[0].config)
    return environment.get_template("page.html.jinja").render(
        title=", ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs",
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        generator=Markup(GENERATOR),
        policy=_policy(scripts),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        runs=runs,
        lines=outcome.outcomes(runs),
        stages=outcome.stages(runs),
        warnings=outcome.warnings(runs),
        protocol=outcome.protocol,
        data=outcome.data,
        colours=[charts.colour(i) for i in range(len(runs))],
        dashes=[charts.dash(i) for i in range(len(runs))],
        score=score,
        groups=groups,
        place=lambda chart: places[id(chart)],
        charts=Markup(charts.as_json({places[id(chart)]: chart for chart in drawn})),
        most_points=charts.MOST_POINTS,
        albums=list(dict.fromkeys(name for run in runs for name in run.albums)),
        most_pictures=pictures.MOST,
        settings=settings.table(configs, known),
        histories=[(run, _history(run)) for run in runs if run.earlier],
        facts=settings.table(
            [{key: run.results[key] for key in FACTS if key in run.results} for run in runs if run.results]
        ),
        commands=[(run, _commands(run)) for run in runs],
    )


def _policy(scripts: Sequence[str]) -> str:
    """Content security policy: the page runs its own scripts and loads nothing."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def _history(run: RunFolder) -> list[tuple[int, list[settings.Row]]]:
    """Changes of settings when the run was resumed, by step."""
    following = [config for _, config in run.earlier[1:]] + [run.config]
    return [
        (step, [row for row in settings.table([before, after]) if row.differs])
        for (step, before), after in zip(run.earlier, following, strict=True)
    ]


def _commands(run: RunFolder) -> list[tuple[str, str]]:
    """Commands that repeat or continue a run, with descriptions."""
    program = called() if settings.trains_learner(run.config) else f"{called()} pretrain fit"
    commands = []
    typed = run.results.get("command", "")
    if typed and typed.isprintable():  # a terminal into which it is pasted would obey a line break
        commands.append(("As it was typed", typed))
    if run.trained or not run.results:
        settings_of = (
            "With the settings that it ended with" if run.earlier else "With all settings as they were"
        )
        commands.append((settings_of, f"{program} {shlex.join(['--config', str(run.folder / CONFIG)])}"))
    if not run.state.finished and run.last_checkpoint.is_file():
        resume = shlex.join(["--ckpt_path", str(run.last_checkpoint)])
        commands.append(("Continue from its last checkpoint", f"{program} {resume}"))
    return commands
