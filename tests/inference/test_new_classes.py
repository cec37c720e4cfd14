"""From a checkpoint and a few examples of new classes to predictions: `train.py predict --data.support`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy import ndarray
from scipy.stats import binomtest

from leo_lightning.commands.train import main
from leo_lightning.common.errors import InputError
from leo_lightning.data import new_classes
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.new_classes import NewClasses
from leo_lightning.data.normalization import FeatureRecord
from leo_lightning.data.splits import load_split
from leo_lightning.data.synthetic import synthesize
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.training.checkpoint import read_checkpoint
from leo_lightning.training.meta_learner import MetaLearner
from leo_lightning.training.task_scores import wilson_interval
from tests.data.banks import make_bank
from tests.places import ROOT
from tests.tiny_run import files, folders, results, rows, tiny

CENTROID = f"{NearestCentroid.__module__}.{NearestCentroid.__name__}"
N, K, Q = 4, 3, 15
SAMPLES = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training on centred features."""
    root = tmp_path_factory.mktemp("runs")
    assert tiny(root, "--data.normalize=center_l2", "--model.learner.latent_lr=20", command="fit") == 0
    return folders(root)[0]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the command runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def images(classes: range, each: slice) -> tuple[ndarray, ndarray]:
    """Embeddings and labels of some images of some synthetic test classes, in disorder."""
    bank = synthesize()["test"]
    chosen = np.concatenate([np.arange(200)[each] + 200 * number for number in classes])
    chosen = np.random.default_rng(3).permutation(chosen)
    names = np.array(bank.class_names)[bank.labels.numpy()]
    return bank.embeddings.numpy()[chosen], names[chosen]


def write(classes: range = range(N), shots: int = K) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Write `s.npz` and `q.npz`, labelled, and return what is in them."""
    support, names = images(classes, slice(shots))
    query, labels = images(range(N), slice(100, 100 + Q))
    np.savez("s.npz", embeddings=support, labels=names)
    np.savez("q.npz", embeddings=query, labels=labels)
    return support, names, query, labels


def predict(checkpoint: Path | None, *args: str, support: str = "s.npz", query: str = "q.npz") -> Path:
    """Run the command; the folder of its run."""
    before = set(Path("runs").glob("*/*"))
    named = [] if checkpoint is None else [f"--ckpt_path={checkpoint}"]
    short = ["--run.root=runs", "--trainer.accelerator=cpu"]
    assert main(["predict", *named, *short, f"--data.support={support}", f"--data.query={query}", *args]) == 0
    (folder,) = set(Path("runs").glob("*/*")) - before
    return folder


def normalized(x: ndarray, run: Path) -> torch.Tensor:
    """What `center_l2` says, by NumPy in float64."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["init_args"]["normalize"] == "center_l2"
    centred = x.astype(np.float64) - synthesize()["train"].embeddings.numpy().astype(np.float64).mean(0)
    return torch.from_numpy(centred / np.linalg.norm(centred, axis=1, keepdims=True)).float()


def trained(run: Path, **changes: object) -> LEO:
    """The learner of a run with other arguments."""
    checkpoint = read_checkpoint(best(run))
    learner = LEO(**checkpoint["hyper_parameters"]["learner"]["init_args"] | changes)
    weights = {name.removeprefix("learner."): w for name, w in checkpoint["state_dict"].items()}
    learner.load_state_dict(weights)
    return learner.eval().requires_grad_(False)


def by_class(support: torch.Tensor, labels: ndarray) -> tuple[torch.Tensor, list[str]]:
    names = sorted(set(labels.tolist()))
    return torch.stack([support[torch.from_numpy(labels == name)] for name in names])[None], names


def column(table: list[dict[str, str]], name: str) -> ndarray:
    return np.array([float(row[name]) for row in table])


def test_every_column_is_what_it_says(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches another normalisation, mean, classifier or order of classes, and an entropy in bits."""
    support, names, query, labels = write()
    table = rows(predict(best(run)) / "predictions.csv")
    shots, classes = by_class(normalized(support, run), names)
    images = normalized(query, run)
    probability = trained(run).adapt(shots)(images[None])[0].softmax(-1).double().numpy()
    answer = probability.argmax(1)
    assert [row["class"] for row in table] == labels.tolist()
    assert [int(row["image"]) for row in table] == list(range(N * Q))
    assert [row["predicted"] for row in table] == [classes[number] for number in answer]
    assert len(set(answer)) == N
    np.testing.assert_allclose(column(table, "probability"), probability.max(1), atol=2e-6)
    entropy = -(probability * np.log(probability)).sum(1)
    np.testing.assert_allclose(column(table, "entropy"), entropy, atol=2e-6)
    for number, name in enumerate(classes):
        np.testing.assert_allclose(column(table, f"p({name})"), probability[:, number], atol=2e-6)
    drawn = trained(run, test_samples=SAMPLES).adapt(shots)
    assert isinstance(drawn, SampledClassifier)
    votes = (images @ drawn.weight[0].transpose(1, 2)).argmax(-1).numpy()
    shares = (votes != answer).mean(0)
    np.testing.assert_allclose(column(table, "disagreement"), shares, atol=1e-6)
    assert 0 < shares.max() <= 1
    said = capsys.readouterr().out
    assert f"accuracy {100 * (np.array(classes)[answer] == labels).mean():.2f} % of {N * Q} queries" in said


def test_accuracy_counts_what_the_support_has(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches queries of other classes that are counted, or not predicted, and labels matched by place."""
    _, _, query, labels = write(range(1, N))
    np.savez("q.npz", embeddings=query, labels=labels, image_names=[f"{i}.png" for i in range(len(query))])
    folder = predict(best(run))
    table, found, said = rows(folder / "predictions.csv"), results(folder), capsys.readouterr().out
    counted = [row for row in table if row["class"] != "test00"]
    hits = sum(row["predicted"] == row["class"] for row in counted)
    assert len(table) == N * Q
    assert [row["image"] for row in table] == [f"{i}.png" for i in range(N * Q)]
    assert {row["predicted"] for row in table} == {"test01", "test02", "test03"}
    assert (found["accuracy"], found["queries"]) == (hits / (3 * Q), 3 * Q)
    assert (found["queries_of_other_classes"], found["tasks"], found["learner"]) == (Q, 1, "LEO")
    assert found["wilson95"] == list(wilson_interval(hits, 3 * Q))
    assert found["shots"] == {f"test0{number}": K for number in (1, 2, 3)}
    assert f"{Q} of {N * Q} queries are of a class that is not in the support ('test00')" in said
    low, high = (100 * bound for bound in found["wilson95"])
    assert f"{3 * Q} queries of one task, 95% interval {low:.2f} to {high:.2f} %" in said


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (37, 45), (45, 45), (500, 1000)])
def test_the_interval_is_wilsons(hits: int, count: int):
    """Catches the interval of a normal distribution, which leaves 0 to 1 and is empty at its ends."""
    reference = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((reference.low, reference.high), abs=1e-5)


def test_nothing_pretends_to_be_an_accuracy(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches an accuracy without labels, or of no query, and a column of classes that nobody knows."""
    _, _, query, _ = write(range(2))
    np.savez("q.npz", features=query)
    folder = predict(best(run))
    assert list(rows(folder / "predictions.csv")[0])[:3] == ["image", "predicted", "probability"]
    np.savez("q.npz", features=query, y=np.full(len(query), "other"))
    other = predict(best(run))
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "60 of 60 queries are of a class that is not in the support ('other')" in said
    assert not (folder / "results.json").exists()
    assert not (other / "results.json").exists()


def test_a_checkpoint_alone_suffices(run: Path):
    """Catches a normalisation or a method that is looked for in the run's configuration or features."""
    write()
    table = rows(predict(best(run)) / "predictions.csv")
    shutil.copy(best(run), "alone.ckpt")
    folder = predict(Path("alone.ckpt"), "--out=p.csv")
    assert rows(Path("p.csv")) == table
    assert [path.name for path in files(folder)] == ["config.yaml", "results.json"]


def test_a_checkpoint_records_what_it_was_trained_on(run: Path):
    """Catches a mean of another split, a record that code is run for, and a lost origin of features."""
    checkpoint = torch.load(best(run), weights_only=True)
    record = FeatureRecord.of(checkpoint, 128)
    assert record is not None
    mean = synthesize()["train"].embeddings.double().mean(0).float()
    assert record.normalization.mean is not None
    torch.testing.assert_close(record.normalization.mean, mean)
    assert checkpoint["EpisodeDataModule"]["normalize"] == "center_l2"
    assert record.provenance == {"dataset": "synthetic", "split": "train", "seed": "0"}


@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_without_a_mean_none_is_recorded(normalize: str):
    """Catches a mean that is computed for nothing, or subtracted."""
    state = EpisodeDataModule(normalize=normalize).state_dict()  # pyright: ignore[reportArgumentType]
    assert (state["normalize"], state["mean"]) == (normalize, None)
    record = FeatureRecord.of({"EpisodeDataModule": state}, None)
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expected = x if normalize == "none" else torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    assert record is not None
    torch.testing.assert_close(record.normalization(x), expected)


def test_resuming_with_another_normalisation_is_allowed(run: Path):
    """Catches a record that stands in the way of training on, or that the next checkpoint does not renew."""
    copy = Path(shutil.copytree(run, "copy"))
    more = ["--data.normalize=none", "--trainer.max_steps=9"]
    assert main(["fit", f"--ckpt_path={copy / 'checkpoints/last.ckpt'}", *more]) == 0
    checkpoint = read_checkpoint(copy / "checkpoints" / "last.ckpt")
    assert checkpoint["EpisodeDataModule"]["normalize"] == "none"


def test_checkpoints_of_earlier_releases_take_the_runs_configuration(run: Path):
    """Catches old checkpoints that are refused, or taken for normalised in the usual way."""
    write()
    copy = Path(shutil.copytree(run, "copy"))
    content = torch.load(best(copy), weights_only=True)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    found = []
    for normalize, recorded in (("none", True), ("none", False), ("l2", False)):
        record = {"normalize": normalize, "mean": None, "provenance": {}}
        kept = {key: value for key, value in content.items() if key != "EpisodeDataModule"}
        torch.save(kept | ({"EpisodeDataModule": record} if recorded else {}), best(copy))
        config["data"]["init_args"]["normalize"] = "center_l2" if recorded else normalize
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        found.append(rows(predict(best(copy)) / "predictions.csv"))
    assert found[0] == found[1] != found[2]


def test_all_kinds_of_files_say_the_same(run: Path):
    """Catches a format whose rows or labels are read in another order, or demanded of queries."""
    support, names, query, labels = write()
    table = rows(predict(best(run)) / "predictions.csv")
    np.save("s_embeddings.npy", support)
    Path("s_labels.txt").write_text("\n".join(names))
    torch.save({"x": torch.from_numpy(query), "targets": labels.tolist()}, "q.pt")
    assert rows(predict(best(run), support="s_embeddings.npy", query="q.pt") / "predictions.csv") == table
    save_bank(FeatureBank.from_arrays(support, names.tolist()), Path("s.safetensors"))
    np.save("u.npy", query.astype(np.float64))
    unlabelled = [{key: cell for key, cell in row.items() if key != "class"} for row in table]
    folder = predict(best(run), support="s.safetensors", query="u.npy")
    assert rows(folder / "predictions.csv") == unlabelled
    bank = FeatureBank.from_arrays(query, labels.tolist(), [str(i) for i in range(len(query))])
    save_bank(bank, Path("q.safetensors"))
    named = rows(predict(best(run), query="q.safetensors") / "predictions.csv")
    assert sorted(named, key=lambda row: int(row["image"])) == table
    assert [row["class"] for row in named] == sorted(labels)


def test_any_number_of_queries_is_taken_in_batches(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches queries that all lie in memory at once, are lost between batches, or are each adapted for."""
    write()
    table = rows(predict(best(run)) / "predictions.csv")
    adapted, sizes = [], []
    adapt, step = LEO.adapt, MetaLearner.predict_step
    monkeypatch.setattr(LEO, "adapt", lambda *args: adapted.append(1) or adapt(*args))

    def watched(system: MetaLearner, batch: new_classes.Queries, batch_idx: int):
        sizes.append(len(batch.row))
        return step(system, batch, batch_idx)

    monkeypatch.setattr(MetaLearner, "predict_step", watched)
    monkeypatch.setattr(new_classes, "QUERIES", 7)
    again = rows(predict(best(run)) / "predictions.csv")
    assert sizes == [7] * 8 + [4]
    assert len(adapted) == 2  # once for the answers, once for the drawn classifiers
    for name in ("probability", "entropy", "disagreement"):
        np.testing.assert_allclose(column(again, name), column(table, name), atol=2e-6)
    assert [row["predicted"] for row in again] == [row["predicted"] for row in table]


def test_samples_of_the_run_are_averaged(run: Path):
    """Catches an answer that is not the model's as it is tested."""
    support, names, query, _ = write()
    table = rows(predict(best(run), "--model.learner.test_samples=3") / "predictions.csv")
    shots, _ = by_class(normalized(support, run), names)
    expected = trained(run, test_samples=3).adapt(shots)(normalized(query, run)[None])[0].softmax(-1)
    np.testing.assert_allclose(column(table, "probability"), expected.amax(1).numpy(), atol=2e-6)
    mean = trained(run).adapt(shots)(normalized(query, run)[None])[0].softmax(-1)
    assert (mean - expected).abs().max() > 1e-4


def test_predictions_are_the_same_in_double_precision(run: Path):
    """Catches a flag of the Trainer that support and queries do not follow."""
    write()
    single, double = (
        rows(predict(best(run), f"--trainer.precision={bits}-true") / "predictions.csv") for bits in (32, 64)
    )
    np.testing.assert_allclose(column(single, "entropy"), column(double, "entropy"), atol=1e-5)


def test_what_is_not_trained_takes_its_mean_from_features():
    """Catches a method without a checkpoint that is refused or normalised otherwise; it draws nothing."""
    root = Path("features")
    root.mkdir()
    save_bank(make_bank(["x", "y"], 30), root / "train.safetensors")
    bank = make_bank(["a", "b", "c"], 12, split="test")
    save_bank(bank, Path("q.safetensors"))
    # unequal shots: 5, 2 and 1 of the classes
    kept = [0, 1, 2, 3, 4, 12, 13, 24]
    x, numbers = bank.embeddings[kept].numpy(), bank.labels[kept].numpy()
    np.savez("s.npz", x=x, y=np.array(bank.class_names)[numbers])
    config = ROOT / "configs" / "methods" / "nearest_centroid.yaml"
    folder = predict(None, f"--config={config}", f"--data.root={root}", query="q.safetensors")
    mean = load_split(root, "train").embeddings.numpy().mean(0)
    unit = [
        (y - mean) / np.linalg.norm(y - mean, axis=1, keepdims=True) for y in (x, bank.embeddings.numpy())
    ]
    centroids = np.stack([unit[0][numbers == number].mean(0) for number in range(3)])
    distances = ((unit[1][:, None] - centroids) ** 2).sum(2)
    table = rows(folder / "predictions.csv")
    assert [row["predicted"] for row in table] == ["abc"[number] for number in distances.argmin(1)]
    expected = np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)
    np.testing.assert_allclose(column(table, "p(b)"), expected[:, 1], atol=2e-6)
    assert {row["disagreement"] for row in table} == {""}
    assert results(folder)["shots"] == {"a": 5, "b": 2, "c": 1}


def test_many_classes_have_no_column_each():
    """Catches a table of thousands of columns, and classes sorted as text that are numbers."""
    E = 30
    np.savez("s.npz", x=np.eye(E, dtype=np.float32)[:25], y=np.arange(25))
    np.savez("q.npz", x=np.eye(E, dtype=np.float32)[:25], y=np.arange(25))
    table = rows(predict(None, f"--model.learner={CENTROID}") / "predictions.csv")
    head = ["image", "class", "predicted", "probability", "entropy", "disagreement"]
    assert list(table[0]) == head
    assert [row["predicted"] for row in table] == [str(number) for number in range(25)]


def test_the_saved_configuration_repeats_it(run: Path):
    """Catches a config.yaml that names other data than was predicted, or a normalisation in its way."""
    write()
    folder = predict(best(run))
    again = ["--run.root=again", f"--config={folder / 'config.yaml'}", f"--ckpt_path={best(run)}"]
    assert main(["predict", *again]) == 0
    (other,) = Path("again").glob("*/*")
    assert rows(other / "predictions.csv") == rows(folder / "predictions.csv")


def test_without_support_it_predicts_test_tasks_as_before(run: Path):
    """Catches a flag of one kind of prediction that the other ignores."""
    assert (
        main(
            [
                "predict",
                f"--ckpt_path={best(run)}",
                "--data.predict_tasks=2",
                "--out=p.csv",
                "--run.root=runs",
            ]
        )
        == 0
    )
    assert len(rows(Path("p.csv"))) == 2 * 5 * 15
    assert list(rows(Path("p.csv"))[0]) == ["task", "image", "class", "predicted", "probability"]
    assert [path.name for path in files(Path("runs")) if path.is_file()] == ["config.yaml"]


def test_features_of_another_backbone_are_said(run: Path):
    """Catches features that no learner was trained on, and nobody says it."""
    support, names, _, _ = write()
    save_bank(
        FeatureBank.from_arrays(support, names.tolist(), None, {"backbone": "theirs"}), Path("s.safetensors")
    )
    content = torch.load(best(run), weights_only=True)
    content["EpisodeDataModule"]["provenance"]["backbone"] = "ours"
    torch.save(content, "x.ckpt")
    data = NewClasses("s.safetensors", "q.npz", ckpt_path="x.ckpt")
    assert data.notes == ["s.safetensors was made by theirs, and the model was trained on features of ours"]


def test_queries_that_were_examples_are_said():
    """Catches a perfect score of what was learned from, and bfloat16, a type that NumPy lacks."""
    support, names, _, _ = write()
    bank = FeatureBank.from_arrays(torch.from_numpy(support).bfloat16(), names.tolist())
    save_bank(bank, Path("s.safetensors"))
    save_bank(bank, Path("q.safetensors"))
    notes = NewClasses("s.safetensors", "q.safetensors").notes
    assert notes == [f"{N * K} of the queries are examples of the support, too: they are easy"]
    assert NewClasses("s.safetensors", "q.npz").notes == []


def test_it_is_for_prediction_alone():
    """Catches new classes that are trained or tested on through a configuration."""
    with pytest.raises(InputError, match="is for `predict`, not for `test`; leave it out"):
        NewClasses("s.npz", "q.npz").setup("test")


def test_a_method_that_needs_equal_shots_says_so():
    """Catches padding that is taken for examples."""

    class Equal(NearestCentroid):
        unequal_shots = False

    support, valid = torch.ones(1, 2, 2, 3), torch.tensor([[[True, True], [True, False]]])
    with pytest.raises(
        InputError,
        match="Equal cannot adapt to classes with unequal numbers of examples; give every class the same",
    ):
        Equal().adapt(support, valid)
