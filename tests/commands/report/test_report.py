"""Reports of runs in every state. Nothing in a run folder becomes code."""

import csv
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from leo_lightning import __main__ as program
from leo_lightning.commands.report import page, settings
from leo_lightning.commands.report.charts import MOST_POINTS, groups, score_chart
from leo_lightning.commands.report.outcome import outcomes, stages, warnings
from leo_lightning.commands.report.pictures import MOST, read_albums
from leo_lightning.commands.report.run_folder import RunFolder, read_runs
from leo_lightning.commands.report.tables import thinned
from leo_lightning.common.yaml_files import read_table
from leo_lightning.learners.leo import LEO
from tests.commands.report.run_folders import draw, make_run, write_csv
from tests.tiny_run import results, rows


class Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the megabytes of plotly's script; test_page.py has them."""
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "")


def seen(*runs: Path) -> str:
    """The text of the page of some runs."""
    return Text(page.render(read_runs(runs))).text


# The outcome


def test_a_real_run_is_told_as_its_files_have_it(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Catches a report that expects other files, columns or names than a run writes."""
    out = tmp_path / "page.html"
    assert program.run("report", [str(finished_run), f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    text = Text(out.read_text()).text
    stored = results(finished_run)
    assert f"{100 * stored['accuracy']:.2f} % ± {100 * stored['ci95']:.2f}" in text
    assert "mean of 40 test tasks" in text
    assert "trained 6 steps, then tested" in text
    assert stored["command"] in text
    assert stored["commit"] in text
    validated = [row for row in rows(finished_run / "metrics.csv") if row["val/accuracy"]]
    best = max(validated, key=lambda row: float(row["val/accuracy"]))
    assert f"{100 * float(best['val/accuracy']):.2f} ± " in text
    for stage, scores in stored["stages"].items():
        assert f"{100 * scores['accuracy']:.2f} ± {100 * scores['ci95']:.2f} %" in text, stage


def test_every_column_but_the_test_has_its_curve(finished_run: Path):
    """Catches a curve that is left out, or one of a test."""
    (run,) = read_runs([finished_run])
    with (finished_run / "metrics.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    wanted = {name for name in columns if "/" in name and not name.startswith("test/")}
    chart = score_chart([run])
    assert chart is not None
    drawn = {chart.name, *(one.name for _, group in groups([run]) for one in group)}
    assert drawn == wanted - {"val/accuracy_ci95"}


def test_an_unfinished_run_says_how_far_it_is(tmp_path: Path):
    """Catches a crashed run that looks finished, and a half-written line that is read."""
    run = make_run(tmp_path / "one", [0.5, 0.75, 0.625], max_steps=10_000)
    with (run / "metrics.csv").open("a") as file:
        file.write("79,0,0.9")
    os.utime(run / "metrics.csv", (time.time() - 200,) * 2)
    text = seen(run)
    assert "unfinished: step 60 of 10,000; last line 3 minutes ago; no checkpoint" in text
    assert "75.00 % ± 1.00" in text
    assert "best validation, at step 40" in text


def test_the_checkpoint_knows_more_steps_than_the_log(finished_run: Path, tmp_path: Path):
    """Catches a run of 6 steps that seems unfinished, as its last log line is of step 5."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "results.json").unlink()
    kept = [row for row in rows(run / "metrics.csv") if int(row["step"]) < 5]
    write_csv(run / "metrics.csv", [{key: row[key] for key in row if key[:4] != "test"} for row in kept])
    assert "trained 6 steps; not tested" in seen(run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 6", "max_steps: 60"))
    assert "unfinished: step 6 of 60; last line less than a minute ago; checkpoint of step 6" in seen(run)
    (run / "checkpoints" / "last.ckpt").write_bytes(b"half")
    assert "unfinished: step 5 of 60; last line less than a minute ago; checkpoint written" in seen(run)


def test_a_run_that_was_stopped_at_once_has_a_page(tmp_path: Path):
    """Catches a crash on a folder that holds a configuration only."""
    run = make_run(tmp_path / "one")
    (run / "metrics.csv").unlink()
    text = seen(run)
    assert "No score yet" in text
    assert "unfinished: step 0 of 100; nothing logged yet" in text


def test_a_result_is_not_of_the_training_that_went_on_after_it(tmp_path: Path):
    """Catches an old result shown as the result of a resumed run."""
    run = make_run(tmp_path / "one", [0.5, 0.75], max_steps=1000, tasks=[0.5, 0.75])
    kept = [row for row in rows(run / "metrics.csv") if not row["test/accuracy"]]
    write_csv(run / "metrics.csv", [{key: row[key] for key in row if key != "test/accuracy"} for row in kept])
    text = seen(run)
    assert "unfinished: step 40 of 1,000" in text
    assert "its result is from before training continued" in text
    assert "62.50" not in text


def test_a_validation_is_no_unfinished_training(tmp_path: Path):
    """Catches `train.py validate` that seems to have stopped at its first step."""
    run = make_run(tmp_path / "one", [0.5], every=1, logged={})
    text = seen(run)
    assert "validated" in text
    assert "unfinished" not in text
    assert "Accuracy of a validation, with its 95% interval" in text
    assert "at step" not in text


def test_less_of_a_squared_error_is_better(tmp_path: Path):
    """Catches a best validation of a regression that is its worst, and its score in percent."""
    logged = {"train/loss": [1.0], "val/mse": [2.5, 0.5, 1.5], "val/mse_ci95": [0.1, 0.2, 0.3]}
    run = make_run(tmp_path / "one", logged=logged)
    text = seen(run)
    assert "0.500 ± 0.200" in text
    assert "squared error, best validation, at step 40" in text.lower()


def test_the_difference_is_that_task_by_task(tmp_path: Path):
    """Catches a difference with the interval of independent tasks, or of tasks that are not the same."""
    rng = np.random.default_rng(0)
    base = rng.random(50)
    gain = 0.05 + 0.01 * rng.standard_normal(50)
    runs = [
        make_run(tmp_path / "a", [0.5], tasks=base.tolist()),
        make_run(tmp_path / "b", [0.5], tasks=(base + gain).tolist()),
        make_run(tmp_path / "c", [0.5], tasks=base.tolist(), results={"eval_seed": 1}),
    ]
    lines = outcomes(read_runs(runs))
    wanted = f"+{100 * gain.mean():.2f} ± {100 * 1.96 * gain.std(ddof=1) / 50**0.5:.2f} points"
    assert [line.difference for line in lines] == ["", wanted, ""]


def test_runs_of_different_protocols_are_said_to_be(tmp_path: Path):
    """Catches a table that compares 1-shot with 5-shot without a word."""
    one = make_run(tmp_path / "a", [0.5], tasks=[0.5, 0.75])
    other = make_run(tmp_path / "b", [0.5], tasks=[0.5], results={"protocol": {"way": 5, "shot": 5}})
    assert not warnings(read_runs([one]))
    assert "different protocols" in warnings(read_runs([one, other]))[0]
    assert "cannot be compared" in seen(one, other)


def test_two_normalisations_are_one_protocol(tmp_path: Path):
    """Catches methods on the same tasks that are said not to be comparable, as l2 and center_l2 are."""
    runs = [
        make_run(
            tmp_path / kind, [0.5], tasks=[0.5, 0.75], results={"protocol": {"way": 5, "normalize": kind}}
        )
        for kind in ("l2", "center_l2")
    ]
    assert not warnings(read_runs(runs))


def test_unknown_classes_are_no_other_protocol(tmp_path: Path):
    """Catches two runs with the same accuracies on the same tasks that are said not to be comparable."""
    facts = {"without": {"way": 5}, "with": {"way": 5, "unknown": 5}}
    runs = [
        make_run(tmp_path / name, [0.5], tasks=[0.5, 0.75], results={"protocol": protocol})
        for name, protocol in facts.items()
    ]
    assert not warnings(read_runs(runs))
    assert outcomes(read_runs(runs))[1].difference


def test_runs_are_told_apart_by_the_shortest_name(tmp_path: Path):
    """Catches two runs of one experiment under the same name."""
    stamps = ["2026-01-01_00-00-00", "2026-01-02_00-00-00-2"]
    paths = [make_run(tmp_path / name / stamp) for name in "ab" for stamp in stamps]
    assert [run.name for run in read_runs(paths[1:3])] == ["a", "b"]
    assert [run.name for run in read_runs(paths[:2])] == [f"a/{stamp}" for stamp in stamps]


def test_the_page_of_several_runs_is_in_the_folder_that_they_share(tmp_path: Path):
    """Catches a page that goes to the first run, and one that is not written anew."""
    runs = [make_run(tmp_path / "runs" / name, [0.5]) for name in "ab"]
    for _ in range(2):
        assert program.run("report", [*map(str, runs)]) == 0
    assert (tmp_path / "runs" / "report.html").is_file()
    assert not (runs[0] / "report.html").exists()


def test_missing_stages_leave_cells_empty(tmp_path: Path):
    """Catches columns that slip where one run has a stage that another has not."""
    first = {"stages": {"final": {"accuracy": 0.5, "ci95": 0.1}, "nearest_centroid": {"accuracy": 0.25}}}
    runs = [
        make_run(tmp_path / "a", tasks=[0.5, 0.5], results=first),
        make_run(tmp_path / "b", tasks=[0.5, 0.5], results={"stages": {"final": {"accuracy": None}}}),
    ]
    assert stages(read_runs(runs)) == [
        ("LEO", ["50.00 ± 10.00 %", ""]),
        ("nearest centroid", ["25.00 %", ""]),
    ]


# Curves


def test_a_long_curve_keeps_its_peaks():
    """Catches a spike of the loss that is thinned away, and a page that grows with the run."""
    rng = np.random.default_rng(0)
    steps, values = np.arange(100_000), rng.standard_normal(100_000)
    values[[777, 50_001]] = [99, -99]
    values[1000:2000] = np.nan
    at, kept = thinned((steps, values), MOST_POINTS)
    assert len(at) <= MOST_POINTS
    assert {0, 777, 50_001, 99_999} <= set(at.tolist())
    assert (np.diff(at) > 0).all()
    np.testing.assert_array_equal(kept, values[at])


def test_the_page_of_a_long_run_stays_small(tmp_path: Path):
    """Catches a page that holds every point."""
    logged = {f"loss/{i}": np.random.default_rng(i).random(4000).tolist() for i in range(8)}
    run = make_run(tmp_path / "one", logged=logged, every=10)
    small = make_run(tmp_path / "two", logged={"loss/0": [1.0]})
    sizes = [len(page.render(read_runs([folder]))) for folder in (run, small)]
    assert sizes[0] - sizes[1] < 3e5


def test_a_constant_has_an_axis_of_its_size(tmp_path: Path):
    """Catches a learning rate of 0.001 drawn as 0, between 1 and -1."""
    run = make_run(tmp_path / "one", [0.5])
    write_csv(run / "metrics.csv", [{"step": step, "health/learning_rate": 0.001} for step in range(3)])
    ((_, (chart,)),) = groups(read_runs([run]))
    assert tuple(chart.figure.layout.yaxis.range) == (0.0, 0.002)


def test_values_that_are_not_finite_are_gaps(tmp_path: Path):
    """Catches JSON that no browser reads."""
    run = make_run(tmp_path / "one", logged={"loss/kl": [1.0, float("nan"), float("inf"), 2.0]})
    html = page.render(read_runs([run]))
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    json.loads(data[1], parse_constant=pytest.fail)


# Pictures


def test_twelve_steps_of_many_are_shown(tmp_path: Path):
    """Catches a page that holds every picture, or not the last one."""
    run = make_run(tmp_path / "one", [0.5])
    steps = [500 * i for i in range(1, 41)]
    draw(run, "confusion", steps)
    draw(run, "codes", [500])
    (run / "pictures" / "codes" / "notes.txt").write_text("")
    # the numbers behind a picture, which goes before them
    write_csv(run / "pictures" / "codes" / "step-00000500.csv", [{"task": 0}])
    albums = read_albums(run)
    shown = [picture.step for picture in albums["confusion"].pictures]
    assert len(shown) == MOST
    assert {500, 20_000} <= set(shown) <= set(steps)
    assert [picture.step for picture in albums["codes"].pictures] == [500]
    images = [tag for tag in Text(page.render(read_runs([run]))).tags if tag[0] == "img"]
    assert len(images) == MOST + 1
    assert all(
        attributes["alt"] and attributes["src"][:22] == "data:image/png;base64," for _, attributes in images
    )
    assert "(12 of 40 steps)" in seen(run)


def test_a_table_among_the_pictures(tmp_path: Path):
    """Catches hardest tasks that are not shown, and numbers with all their digits."""
    run = make_run(tmp_path / "one", [0.5])
    place = run / "pictures" / "hardest_tasks"
    place.mkdir(parents=True)
    write_csv(place / "step-00000500.csv", [{"task": 1, "classes": "cat, dog", "accuracy": 2 / 3}])
    text = seen(run)
    assert "0.6667" in text
    assert "0.66666" not in text
    assert "cat, dog" in text
    assert "Hardest tasks" in text


def test_a_run_without_pictures_has_no_such_section(tmp_path: Path):
    """Catches an empty heading."""
    assert "Pictures" not in seen(make_run(tmp_path / "one", [0.5]))


# Settings


def test_defaults_of_the_classes(finished_run: Path):
    """Catches a default that is read wrongly out of the source, or not at all."""
    (run,) = read_runs([finished_run])
    defaults = settings.defaults(run.config)
    for name, parameter in inspect.signature(LEO).parameters.items():
        if parameter.default is not parameter.empty:
            assert defaults[f"model.learner.{name}"] == settings.shown(parameter.default), name
    changed = {row.name: row.values[0] for row in settings.table([run.config], defaults) if row.changed}
    quickstart = read_table(Path("configs/leo.yaml"))
    typed = {
        "data.root": "synthetic",
        "trainer.accelerator": "cpu", "trainer.max_steps": "6", "trainer.log_every_n_steps": "1",
        "data.steps_per_epoch": "3", "data.batch_size": "2", "data.val_tasks": "8", "data.test_tasks": "40",
        "data.eval_batch_size": "16", "model.learner.num_latents": "4",
        "run.root": str(finished_run.parents[1]), "run.name": "tiny", "run.pictures_every": "0",
    }  # fmt: skip
    wanted = dict(settings.flat(quickstart)) | typed
    assert changed == {
        name: value for name, value in wanted.items() if name in defaults and defaults[name] != value
    }
    assert set(typed) <= set(changed)


def test_what_differs_comes_first(tmp_path: Path):
    """Catches a difference that is folded away, and equal settings among the differences."""
    runs = [make_run(tmp_path / name, [0.5], kl_weight=weight) for name, weight in (("a", 0.001), ("b", 0.1))]
    text = seen(*runs)
    differs, same = text.index("What differs"), text.index("settings that are the same")
    assert differs < text.index("model.learner.kl_weight") < same
    assert same < text.index("model.learning_rate")


def test_changes_on_resuming_are_listed(tmp_path: Path):
    """Catches a resumed run that seems to have had its last settings from the start."""
    run = make_run(tmp_path / "one", [0.5, 0.5])
    before = (run / "config.yaml").read_text()
    (run / "config-until-step-20.yaml").write_text(
        before.replace("learning_rate: 0.001", "learning_rate: 0.5")
    )
    assert "At step 20: model.learning_rate 0.5 → 0.001" in seen(run)


# Hostile files


def test_nothing_of_a_run_folder_becomes_part_of_the_page(tmp_path: Path):
    """Catches a name, a setting, a cell or a result that is not escaped, wherever it stands."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    name = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
    fields = ("command", "commit", "device", "learner")
    more = dict.fromkeys(fields, evil) | {
        "protocol": {evil: evil}, "data": {evil: evil}, "stages": {evil: {"accuracy": 0.5}},
        "versions": {evil: evil}, "queries": evil,
    }  # fmt: skip
    logged = {f"loss/{evil}": [1.0]}
    runs = [
        make_run(tmp_path / f"{name}{i}", [0.5], logged=logged, tasks=[0.5, 0.5], results=more, **{evil: i})
        for i in range(2)
    ]
    for run in runs:
        draw(run, name, [500, 1000])
        (run / "pictures" / "hardest_tasks").mkdir()
        write_csv(run / "pictures" / "hardest_tasks" / "step-00000500.csv", [{"task": 1, evil: evil}])
        (run / "config-until-step-20.yaml").write_text(f"a: {json.dumps(evil)}")
    for shown in ([runs[0]], runs):
        html = Text(page.render(read_runs(shown)))
        tags = [tag for tag, _ in html.tags]
        assert tags.count("script") == 3
        assert not any(key.startswith("on") for _, attributes in html.tags for key in attributes)
        assert all((attributes["src"] or "")[:5] == "data:" for tag, attributes in html.tags if tag == "img")
        assert html.text.count(" ".join(evil.split())) >= 10
        assert "{{7*7}}" in html.text


def test_no_command_breaks_its_line(tmp_path: Path):
    """Catches a command that runs another one, or hides it, when it is pasted into a terminal."""
    for name, command in (("one", "python train.py\nrm x"), ("two", "python train.py\x1b[201~rm x")):
        run = make_run(tmp_path / name, [0.5], tasks=[0.5], results={"command": command})
        assert "rm x" not in page.render(read_runs([run]))


def test_only_files_are_pictures(tmp_path: Path):
    """Catches a report that waits for ever for a pipe."""
    run = make_run(tmp_path / "one", [0.5])
    (run / "pictures" / "codes").mkdir(parents=True)
    os.mkfifo(run / "pictures" / "codes" / "step-1.png")
    assert read_runs([run])[0].albums == {}


def test_scores_that_were_not_finite_are_left_out(tmp_path: Path):
    """Catches a crash on null, which results.json has in place of NaN, and words in the place of a score."""
    run = make_run(tmp_path / "one", [0.5], tasks=[0.5, 0.5])
    results = json.loads((run / "results.json").read_text())
    results |= {"accuracy": None, "ci95": None, "stages": {"final": {"accuracy": None, "ci95": None}}}
    (run / "results.json").write_text(json.dumps(results))
    assert "50.00 % ± 1.00" in seen(run)


# The command


@pytest.mark.slow
def test_a_finished_run_needs_no_torch(tmp_path: Path):
    """Catches an import that makes the command wait for seconds."""
    run = make_run(tmp_path / "one", [0.5], tasks=[0.5, 0.75])
    code = "import sys; from leo_lightning.commands.report.command import main; "
    code += f"main([{str(run)!r}]); "
    code += "assert not {'torch', 'pytorch_lightning', 'matplotlib', 'wandb', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_run_folder_of_before_is_read(tmp_path: Path):
    """Catches a crash on a run folder that lacks what later releases write."""
    run = make_run(tmp_path / "one", [0.5], tasks=[0.5, 0.75])
    (run / "results.json").write_text('{"accuracy": 0.5}')
    (run / "per_task.csv").unlink()
    (run / "config.yaml").write_text("seed_everything: 0\ntrainer:\n")
    assert isinstance(read_runs([run])[0], RunFolder)
    assert "50.00 %" in seen(run)
