"""`fit_test`, `fit`, `validate`, `test`, `predict`: methods on tasks."""

import pydoc
import re
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import check_place
from leo_lightning.common.program import called
from leo_lightning.common.shipped import CONFIGS
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.function_data import FunctionDataModule
from leo_lightning.data.roots import OMNIGLOT
from leo_lightning.data.table_data import TableDataModule
from leo_lightning.data.task_data import SPLITS, TaskDataModule
from leo_lightning.learners.leo import LEO
from leo_lightning.runs.callbacks.checkpoints import stopped_early
from leo_lightning.runs.callbacks.predictions_csv import ClassesCSV, ValuesCSV
from leo_lightning.runs.callbacks.results import ResultsReport
from leo_lightning.runs.command_line import Command, Program, parse
from leo_lightning.runs.folder import next_commands, tested_checkpoint, with_advice
from leo_lightning.runs.parser import Parser, run_parser
from leo_lightning.runs.pictures.callback import Pictures, TestPicture
from leo_lightning.runs.process import prepare_compiler
from leo_lightning.runs.run import Run
from leo_lightning.runs.trainer_parts import Measure
from leo_lightning.training.checkpoint import builder, read_checkpoint, stored_learner
from leo_lightning.training.meta_learner import MetaLearner

LEO_PATH = f"{LEO.__module__}.{LEO.__name__}"
DATA_PATH = f"{EpisodeDataModule.__module__}.{EpisodeDataModule.__name__}"


def train_parser(verb: str = "fit_test") -> Parser:
    """The fields of a verb."""
    parser = run_parser(f"{called()} {verb}", {"max_steps": 100_000})
    parser.add_class_arguments(MetaLearner, "model", fail_untyped=False)
    parser.add_subclass_arguments(
        TaskDataModule, "data", fail_untyped=False, required=True, default={"class_path": DATA_PATH}
    )
    parser.set_defaults({"model.learner": {"class_path": LEO_PATH}})
    parser.link_arguments(
        "data.embedding_size", "model.learner.init_args.embedding_size", apply_on="instantiate"
    )
    if verb == "predict":
        parser.add_argument("--out", type=str | None, metavar="FILE", help="predictions, in place of "
                            "predictions.csv in the run folder")  # fmt: skip
    return parser


def _completed(config: dict[str, Any] | None, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of a training, with the learner that its checkpoint stores.

    Without a configuration, as in a checkpoint made in Python: learner and data alone, if they are stored.
    """
    path, arguments = stored_learner(checkpoint)
    builder(path, arguments)  # refuses what is not a learner, before the parser would import it
    given = {name: value for name, value in arguments.items() if name != "embedding_size"}
    learner = {"class_path": path, "init_args": given}
    if config is None:
        settings = checkpoint.get("datamodule_hyper_parameters")
        if not isinstance(settings, dict):
            return None
        recorded = (kind for kind in (EpisodeDataModule, TableDataModule) if kind.__name__ in checkpoint)
        data = next(recorded, FunctionDataModule)
        config = {"data": {"class_path": f"{data.__module__}.{data.__name__}", "init_args": settings}}
    model, data = config.get("model"), config.get("data")
    if isinstance(data, dict) and isinstance(arguments := data.get("init_args"), dict):
        # consent is for one command
        kept = {name: value for name, value in arguments.items() if name != "renormalize"}
        config = config | {"data": data | {"init_args": kept}}
    return config | {"model": {**(model if isinstance(model, dict) else {}), "learner": learner}}


def _start(root: str | None) -> Path:
    """The settings for the drawings inside fit nothing else."""
    return CONFIGS / ("quickstart.yaml" if root in (None, OMNIGLOT) else "leo.yaml")


PROGRAM = Program(
    name="",
    verbs=("fit_test", "fit", "validate", "test", "predict"),
    fits=("fit_test", "fit"),
    parser=train_parser,
    read_checkpoint=with_advice(read_checkpoint),
    evaluated=("seed_everything", "run.name", "run.root", "trainer.precision", "model", "data"),
    completed=_completed,
    start=_start,
)


def main(arguments: list[str]) -> None:
    """Run a verb.

    Args:
        arguments: the verb, then its flags.
    """
    verb, *flags = arguments
    command = parse(PROGRAM, verb, flags)
    out = None if command.config.get("out") is None else Path(command.config.out)
    if out is not None:
        check_place(out)
    if command.config.model.compile:
        prepare_compiler(Path(command.config.run.root))
    trained = _is_trained(command)
    if not trained and (verb == "fit" or command.config.resume):
        name = command.config.model.learner.class_path.rpartition(".")[2]
        raise InputError(f"{name} has nothing to train: use `test` or `predict`, without --resume")
    if trained and not command.fitting and command.path is None:
        raise InputError(f"{verb} needs a trained model: --ckpt_path FILE, `best` or `last`")
    if not trained and verb == "fit_test":
        verb, command = "test", command._replace(verb="test")
    run = Run(command)
    data, model = run.data, run.model
    if model.learner.predicts != data.asks:
        raise InputError(
            f"{type(model.learner).__name__} predicts {model.learner.predicts}, and the tasks of "
            f"{type(data).__name__} ask for {data.asks}; choose another --model.learner or --data"
        )
    if isinstance(data, EpisodeDataModule):
        for way in (data.way, *([data.train_way] if command.fitting else [])):
            model.learner.check_way(way)
    run.keep("model.lr_scheduler", *(["model.learning_rate"] if model.lr_scheduler else []))
    evaluation = model.evaluation
    validates = not data.train_on_val
    protocol = data.validation_protocol() if command.fitting and validates else {}
    measure = Measure(evaluation.score, evaluation.mode, "tasks", validates, protocol)
    trainer = run.make_trainer(measure, _callbacks(run, measure, out))
    if command.checkpoint is not None:
        model.check_fits(command.checkpoint)
        if (record := type(data).__name__) in command.checkpoint:  # Lightning's key
            data.load_state_dict(command.checkpoint[record])
    for stage in dict.fromkeys((command.stage, verb.replace("fit_test", "test"))):
        model.check_data(data, stage)
        data.setup(stage)
    model.check_trainer(trainer)
    provenance = data.provenance(SPLITS[command.stage])
    run.begin(
        _banner(run, trainer),
        [*_notes(command, measure, trainer, data), *data.other_features(command.stage)],
        tags=[
            provenance.get("dataset", ""),
            *re.findall(r"\d+-\w+", data.kind()),
            type(model.learner).__name__,
        ],
        provenance=provenance,
        shown_config=_with_size(run.config, data.embedding_size),
    )
    with run.ending():
        _work(verb, trainer, run)
    longer_test = "" if model.learner.transductive else data.longer_test
    run.end(list(next_commands(run.folder, longer_test)), [("results", out)] if out is not None else [])


def _is_trained(command: Command) -> bool:
    """Whether the learner has something to train."""
    learner: Any = pydoc.locate(command.config.model.learner.class_path)
    return learner.trained


def _callbacks(run: Run, measure: Measure, out: Path | None) -> list[Callback]:
    """Callbacks that write pictures, results or predictions."""
    command, callbacks = run.command, []
    if command.fitting and measure.validates and run.options.pictures_every:
        callbacks.append(Pictures(run.folder, run.options.pictures_every, command.verb == "fit_test"))
    if command.verb in ("fit_test", "test"):
        callbacks.append(ResultsReport(run.folder, run.console))
        if run.options.pictures_every:
            callbacks.append(TestPicture(run.folder))
    if command.verb == "predict":
        table = ClassesCSV if run.data.asks == "classes" else ValuesCSV
        callbacks.append(table(out or run.folder / "predictions.csv"))
    return callbacks


def _work(verb: str, trainer: pl.Trainer, run: Run) -> None:
    """Let the Trainer do what the verb says. Checkpoints are read without executing anything."""
    path = None if run.command.path is None else str(run.command.path)
    common: dict[str, Any] = {"datamodule": run.data, "weights_only": True}
    if run.command.fitting:
        if not run.trained:
            trainer.fit(run.model, ckpt_path=path, **common)
            if stopped_early(trainer):
                run.say(f"stopped by EarlyStopping after step {trainer.global_step}")
        if verb == "fit":
            return
        best = tested_checkpoint(run.folder)  # None with fast_dev_run
        # only the first process knows the run folder
        path = trainer.strategy.broadcast(None if best is None else str(best))
    if verb == "validate":
        trainer.validate(run.model, ckpt_path=path, verbose=not run.options.quiet, **common)
    elif verb == "predict":
        trainer.predict(run.model, ckpt_path=path, return_predictions=False, **common)
    else:
        trainer.test(run.model, ckpt_path=path, verbose=False, **common)


def _banner(run: Run, trainer: pl.Trainer) -> list[str]:
    data, learner = run.data, type(run.model.learner).__name__
    parameters = sum(p.numel() for p in run.model.parameters())
    world = trainer.world_size
    several = f", {world} processes of {data.batch_size} tasks" if world > 1 and run.command.fitting else ""
    return [
        f"{learner:7} {data.kind()}, {parameters:,} parameters{several}",
        f"data    {data.banner(run.command.stage)}",
    ]


def _notes(command: Command, measure: Measure, trainer: pl.Trainer, data: TaskDataModule) -> list[str]:
    notes = []
    if command.started and isinstance(data, EpisodeDataModule) and data.hparams["root"] != OMNIGLOT:
        notes.append("settings of configs/leo.yaml, to start with; --config names a file with others")
    steps, epoch = trainer.max_steps, data.steps_per_epoch
    each_epoch = trainer.val_check_interval == 1.0
    if command.fitting and measure.validates and 0 < steps < epoch and each_epoch:
        notes.append(f"no validation in {steps} steps; see --data.steps_per_epoch ({epoch})")
    return notes


def _with_size(config: dict[str, Any], size: int) -> dict[str, Any]:
    """The configuration with the size of the embeddings, which the features tell."""
    learner = config["model"]["learner"]
    learner = learner | {"init_args": {**learner.get("init_args", {}), "embedding_size": size}}
    return config | {"model": config["model"] | {"learner": learner}}
