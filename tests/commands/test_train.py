"""The command line, as a user meets it."""

import csv
import inspect
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from leo_lightning.data.feature_file import save_bank
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.reference.leo import ReferenceLEO
from leo_lightning.runs.callbacks.results import ResultsReport
from leo_lightning.runs.folder import tested_checkpoint as last_tested  # pytest would take it for a test
from leo_lightning.training.meta_learner import MetaLearner
from tests.data.banks import make_bank
from tests.places import ROOT
from tests.tiny_run import TINY, folders, main, results, rows, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root) == 0
    return folders(root)[0]


def test_a_run_leaves_everything_it_promises(run: Path):
    """Catches a file that a later step needs and that is not written, or written elsewhere."""
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoints",
        "config.yaml",
        "metrics.csv",
        "per_task.csv",
        "results.json",
        "tensorboard",
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    found = results(run)
    assert found["tasks"] == 40
    assert found["protocol"]["queries"] == 15
    learned, baselines = ["before_adaptation", "after_latent_steps", "final"], ["", "_cl2n"]
    assert list(found["stages"]) == learned + [f"nearest_centroid{kind}" for kind in baselines]
    per_task = rows(run / "per_task.csv")
    assert [int(row["task"]) for row in per_task] == list(range(40))
    mean = sum(float(row["final"]) for row in per_task) / 40
    assert mean == pytest.approx(found["accuracy"], abs=1e-12)


def test_metrics_have_every_name(run: Path):
    """Catches a loss term or a sign of health that is computed and not logged."""
    with (run / "metrics.csv").open() as file:
        columns = set(next(csv.reader(file)))
    terms = ("cross_entropy", "kl", "encoder_penalty", "l2_penalty", "orthogonality_penalty")
    stages = {"accuracy", "accuracy_before_adaptation", "accuracy_after_latent_steps"}
    wanted = {"train/loss", "train/accuracy", "throughput/tasks_per_second"}
    wanted |= {"health/gradient_norm", "health/bad_steps"}
    wanted |= {f"loss/{name}" for name in terms}
    wanted |= {f"{split}/{name}" for split in ("val", "test") for name in ("loss", *stages)}
    wanted |= {f"inner/{name}" for name in ("dead_latents", "clamped_stds", "latent_lr", "finetuning_lr")}
    assert wanted <= columns


def test_logged_terms_add_up(run: Path):
    """Catches a term logged with or without its weight where the loss has it the other way."""
    row = next(row for row in rows(run / "metrics.csv") if row["train/loss"])
    names = ("cross_entropy", "kl", "encoder_penalty", "l2_penalty", "orthogonality_penalty")
    assert sum(float(row[f"loss/{name}"]) for name in names) == pytest.approx(
        float(row["train/loss"]), rel=1e-6
    )


def test_tensorboard_has_what_the_csv_has(run: Path):
    """Catches a logger that is fed other numbers, or none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    scalars = {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }
    compared = 0
    for row in rows(run / "metrics.csv"):
        for name, text in row.items():
            if text and name not in ("step", "epoch"):
                assert scalars[name][int(row["step"])] == pytest.approx(float(text), rel=1e-6)
                compared += 1
    assert compared > 50


def test_checkpoint_and_saved_config_repeat_the_test(run: Path):
    """Catches a setting that is lost between training and a new process: same accuracy to the last digit."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "test",
        "--ckpt_path",
        str(run / "checkpoints" / "best.ckpt"),
    ]
    subprocess.run([*command, "--run.name=again"], check=True, cwd=run, capture_output=True)
    again = results(folders(run.parents[1], "again")[0])
    assert again["stages"] == results(run)["stages"]
    assert again["steps"] == results(run)["steps"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(torch.OutOfMemoryError("CUDA out of memory."), 1), (RuntimeError("DataLoader worker (pid 3) is"), 2)],
)
def test_a_breakdown_leaves_what_was_computed(
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Catches a traceback, and a validated checkpoint that goes with the run."""

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(ResultsReport, "on_test_start", fail)
    assert tiny(tmp_path) == code
    err = capsys.readouterr().err
    assert (err.startswith("error: "), err.count("\n")) == (True, 1)
    assert last_tested(folders(tmp_path)[0]) is not None


def test_weights_that_are_no_numbers_are_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a chance accuracy without a word of why, and NaN in results.json, which is no JSON."""
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"] = {name: w * torch.nan for name, w in checkpoint["state_dict"].items()}
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert tiny(tmp_path, f"--ckpt_path={tmp_path / 'nan.ckpt'}", command="test") == 0
    assert "warning: the predictions are NaN" in capsys.readouterr().err
    assert results(folders(tmp_path)[0])["calibration_error"] is None


def test_evaluation_commands_need_only_the_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches validate or predict that ask for the configuration again, and predictions unlike the test's."""
    best = str(run / "checkpoints" / "best.ckpt")
    root = run.parents[1]
    assert main(["validate", "--ckpt_path", best, "--run.name=val"]) == 0
    newest = ["--ckpt_path", "best", f"--run.root={root}", "--run.name=tiny"]
    assert main(["predict", *newest, "--data.predict_tasks=5"]) == 0
    predictions = rows(folders(root)[1] / "predictions.csv")
    assert len(predictions) == 5 * 5 * 15
    for task in range(5):
        hits = [row["class"] == row["predicted"] for row in predictions if int(row["task"]) == task]
        expected = float(rows(run / "per_task.csv")[task]["final"])
        assert sum(hits) / len(hits) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_names_of_somebodys_features(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches names that the terminal obeys, that rich takes for markup, or that a spreadsheet evaluates."""
    bank = make_bank(list("abcde"), images=20)
    names = {"dataset": "\x1b]0;x\x07[/b]", "crop": "\x1b[2J", "backbone": "[red]"}
    hostile = tuple(f"={name}\x1b[2J\n" for name in bank.class_names)
    for split in ("train", "test"):
        classes = hostile if split == "test" else bank.class_names
        save_bank(replace(bank, class_names=classes, provenance=names), tmp_path / f"{split}.safetensors")
    words = ["--config=configs/methods/nearest_centroid.yaml", f"--data.root={tmp_path}", "--run.name=a"]
    assert main([command, *words, f"--run.root={tmp_path}", "--data.test_tasks=4"]) == 0
    printed = "".join(capsys.readouterr())
    assert "[/b]" in printed
    assert not re.search(r"[\x00-\x09\x1b]", printed)
    if command == "predict":
        classes = {row["class"] for row in rows(folders(tmp_path, "a")[0] / "predictions.csv")}
        assert classes == {f"'={name}?[2J?" for name in bank.class_names}


def test_all_remaining_queries(run: Path):
    """Catches a protocol that is announced and not applied."""
    best = str(run / "checkpoints" / "best.ckpt")
    args = ["--run.name=all", "--data.test_query=all", "--data.test_tasks=4"]
    assert main(["test", f"--ckpt_path={best}", *args]) == 0
    found = results(folders(run.parents[1], "all")[0])
    assert found["protocol"]["queries"] == "all remaining"
    per_task = rows(folders(run.parents[1], "all")[0] / "per_task.csv")
    hits = [float(row["final"]) * 5 * 199 for row in per_task]  # 200 images per class, one in the support
    assert hits == pytest.approx([round(h) for h in hits], abs=1e-6)


def test_batch_size_of_evaluation_changes_nothing(run: Path):
    """Catches tasks or scores that depend on how tasks are grouped."""
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["test", f"--ckpt_path={best}", "--run.name=b7", "--data.eval_batch_size=7"]) == 0
    assert rows(folders(run.parents[1], "b7")[0] / "per_task.csv") == rows(run / "per_task.csv")


@pytest.mark.parametrize("mode", ["true", "false"])
def test_inference_mode_changes_nothing(run: Path, mode: str):
    """Catches an inner loop that needs autograd: under inference mode it fails or does not adapt."""
    best = str(run / "checkpoints" / "best.ckpt")
    name = f"inference-{mode}"
    assert (
        main(["test", f"--ckpt_path={best}", f"--run.name={name}", f"--trainer.inference_mode={mode}"]) == 0
    )
    assert rows(folders(run.parents[1], name)[0] / "per_task.csv") == rows(run / "per_task.csv")


def test_runs_never_share_a_folder(tmp_path: Path):
    """Catches a second run that overwrites the first, or aborts on its config.yaml."""
    assert tiny(tmp_path, command="fit") == 0
    before = (folders(tmp_path)[0] / "config.yaml").read_bytes()
    assert tiny(tmp_path, "--data.shot=2", command="fit") == 0
    assert len(folders(tmp_path)) == 2
    assert (folders(tmp_path)[0] / "config.yaml").read_bytes() == before


def test_printed_config_replays_the_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a default, or a flag, that the printed configuration leaves out."""
    with pytest.raises(SystemExit) as stop:
        tiny(run.parents[1], "--model.learner.kl_weight=0.5", "--print_config")
    assert stop.value.code in (0, None)
    config = tmp_path / "config.yaml"
    config.write_text(capsys.readouterr().out)
    assert yaml.safe_load(config.read_text())["model"]["learner"]["init_args"]["kl_weight"] == 0.5
    assert (
        main(
            ["fit_test", "--config", str(config), f"--run.root={tmp_path}", "--model.learner.kl_weight=0.001"]
        )
        == 0
    )
    assert results(folders(tmp_path)[0])["stages"] == results(run)["stages"]


def test_saved_config_replays_the_run(run: Path, tmp_path: Path):
    """Catches a config.yaml that holds less than what was run with."""
    assert main(["fit_test", f"--config={run / 'config.yaml'}", f"--run.root={tmp_path}"]) == 0
    assert results(folders(tmp_path)[0])["stages"] == results(run)["stages"]


def test_seed_changes_training_but_not_the_test_tasks(run: Path, tmp_path: Path):
    """Catches a seed that is ignored, and runs that cannot be compared because their test tasks differ."""
    assert tiny(tmp_path, "--seed_everything=1") == 0
    ours, theirs = results(folders(tmp_path)[0])["stages"], results(run)["stages"]
    assert ours["final"] != theirs["final"]
    assert results(folders(tmp_path)[0])["seed"] == 1
    assert ours["nearest_centroid"] == theirs["nearest_centroid"]


def test_centred_centroids_are_those_of_centred_features(tmp_path: Path):
    """Catches a CL2N centred after scaling, by the mean of the test classes, or on other tasks."""
    sizes = ["--data.root=synthetic", "--data.test_tasks=20"]
    words = ["test", "--config=configs/methods/nearest_centroid.yaml", *sizes, f"--run.root={tmp_path}"]
    kinds = ("l2", "none", "center_l2")
    for kind in kinds:
        assert main([*words, f"--data.normalize={kind}", f"--run.name={kind}"]) == 0
    l2, raw, centred = (rows(folders(tmp_path, kind)[0] / "per_task.csv") for kind in kinds)
    for other in (l2, raw):
        assert [row["nearest_centroid_cl2n"] for row in other] == [row["final"] for row in centred]
    assert [row["nearest_centroid_cl2n"] for row in raw] != [row["final"] for row in raw]
    assert "nearest_centroid_cl2n" not in centred[0]


def test_train_on_val_tests_the_last_checkpoint(tmp_path: Path):
    """Catches a run on train + val that still validates on classes it has trained on."""
    assert tiny(tmp_path, "--data.train_on_val=true") == 0
    folder = folders(tmp_path)[0]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert results(folder)["protocol"]["trained_on"] == "train + val"
    assert not any("val/" in name for name in rows(folder / "metrics.csv")[0])


def test_command_line_wins_over_the_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a checkpoint's hyperparameters that override the command line in silence."""
    best = str(run / "checkpoints" / "best.ckpt")
    assert main(["test", f"--ckpt_path={best}", "--model.learner.num_latents=8"]) == 2
    assert "num_latents" in capsys.readouterr().err


def test_checkpoint_is_plain_and_loads_by_itself(run: Path):
    """Catches hyperparameters that only unpickling code could read, or that do not rebuild the learner."""
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["hyper_parameters"]["learner"]["init_args"]["num_latents"] == 4
    system = MetaLearner.load_from_checkpoint(path)
    assert isinstance(system.learner, LEO)
    for name, weight in system.state_dict().items():
        assert torch.equal(weight, checkpoint["state_dict"][name])


def test_config_of_every_published_setting_is_complete():
    """Catches a configuration that does not parse, or leaves a published hyperparameter to a default."""
    published = {"miniimagenet_5way_1shot": 2.739071e-4, "miniimagenet_5way_5shot": 4.102361e-4}
    published |= {"tieredimagenet_5way_1shot": 8.659053e-4, "tieredimagenet_5way_5shot": 6.110314e-4}
    for name, rate in published.items():
        config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
        assert float(config["model"]["learning_rate"]) == rate
        given = set(config["model"]["learner"]["init_args"])
        assert given == set(inspect.signature(ReferenceLEO).parameters) - {"embedding_size"}


def test_help_shows_every_field(capsys: pytest.CaptureFixture[str]):
    """Catches a field without a line of help, and the paper's symbol missing from it."""
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for symbol in (
        "β",
        "γ",
        "λ1",
        "λ2",
        "α",
        "η",
        "H, size of the latent",
        "T, gradient",
        "F, gradient",
        "K, support",
    ):
        assert symbol in text
    for name in LEO(2, 1).init_args():
        if name != "embedding_size":
            help_line = re.search(rf"--model\.learner\.{name} \S+ (.*?)\(type:", text)
            assert help_line is not None, name
            assert len(help_line[1]) > 10, name


def test_resuming_needs_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a resume that goes on with other hyperparameters than the run's, and does not say so."""
    assert tiny(tmp_path, "--model.learner.kl_weight=0.25", command="fit") == 0
    newest = ["fit", "--resume=auto", f"--run.root={tmp_path}", "--run.name=tiny"]
    capsys.readouterr()
    assert main([*newest, "--trainer.max_steps=9", "--model.learner.dropout=0.2"]) == 0
    said = capsys.readouterr().out
    assert "changed trainer.max_steps: 6 → 9" in said
    assert "changed model.learner.dropout: 0.1 → 0.2" in said
    assert said.count("changed ") == 2
    last = torch.load(folders(tmp_path)[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["learner"]["init_args"]["kl_weight"] == 0.25


def test_resuming_twice_keeps_what_was_changed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a second resume that goes back to the settings before the first, or says nothing of it."""
    assert tiny(tmp_path, command="fit") == 0
    newest = ["fit", "--resume=auto", f"--run.root={tmp_path}", "--run.name=tiny"]
    assert main([*newest, "--trainer.max_steps=9", "--model.learner.dropout=0.2"]) == 0
    capsys.readouterr()
    assert main([*newest, "--trainer.max_steps=12"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed")]
    assert said == ["changed trainer.max_steps: 9 → 12"]
    (folder,) = folders(tmp_path)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["learner"]["init_args"]["dropout"] == 0.2
    assert sorted(path.name for path in folder.glob("config*")) == [
        "config-until-step-6.yaml",
        "config-until-step-9.yaml",
        "config.yaml",
    ]


def test_two_runs_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches two runs of a job array that begin in the same second: one writes over the other, or fails."""
    chosen = iter([tmp_path / "taken", tmp_path / "free"])
    monkeypatch.setattr("leo_lightning.runs.run.fresh_folder", lambda root, name: next(chosen))
    (tmp_path / "taken").mkdir()
    assert tiny(tmp_path, "--trainer.fast_dev_run=true", command="fit") == 0
    assert list((tmp_path / "taken").iterdir()) == []
    assert (tmp_path / "free" / "config.yaml").is_file()


@pytest.mark.parametrize("verb", ["fit", "fit_test"])
def test_a_finished_run_has_nothing_left_to_do(verb: str, run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches a requeued job that fails, or repeats its test, after it has done everything."""
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for resumed in (["--resume=auto", f"--run.root={run.parents[1]}", "--run.name=tiny"],
                    [f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]):  # fmt: skip
        assert main([verb, *resumed]) == 0
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        assert "finished at step 6, nothing is left to do; raise --trainer.max_steps" in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_last_checkpoint_knows_the_validation_of_its_step(tmp_path: Path):
    """Catches a last.ckpt written before the validation that is due at its step: resuming would skip that."""
    assert tiny(tmp_path, "--trainer.max_steps=3", "--run.checkpoint_every=1", command="fit") == 0
    last = torch.load(folders(tmp_path)[0] / "checkpoints" / "last.ckpt", weights_only=True)
    (best,) = (state for name, state in last["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert best["best_model_score"] is not None
    assert main(["fit_test", *TINY, f"--run.root={tmp_path}", "--run.name=tiny", "--resume=auto"]) == 0


def test_one_test_task_is_enough(tmp_path: Path):
    """Catches code that needs several tasks to make a table, and an interval invented for one."""
    assert tiny(tmp_path, "--data.test_tasks=1", "--data.val_tasks=1") == 0
    assert results(folders(tmp_path)[0])["tasks"] == 1


def test_fast_dev_run_works(tmp_path: Path):
    """Catches a smoke test that fails for want of the checkpoint that it did not write."""
    assert tiny(tmp_path, "--trainer.fast_dev_run=true") == 0
