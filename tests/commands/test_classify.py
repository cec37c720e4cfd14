"""`classify`: from a checkpoint and a few examples of new classes to predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from numpy import ndarray
from scipy.stats import binomtest

from leo_lightning.commands.new_classes import AUTO, METHODS, TRAINED, TRANSDUCTIVE
from leo_lightning.common.errors import InputError
from leo_lightning.common.intervals import wilson_interval
from leo_lightning.data import new_classes
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.feature_file import save_bank
from leo_lightning.data.feature_record import FeatureRecord
from leo_lightning.data.normalization import Normalization
from leo_lightning.data.synthetic import synthesize
from leo_lightning.inference import adapted_classifier, ways
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.inference.held_out import held_out
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.training.checkpoint import read_checkpoint
from tests.commands.figures.checkpoints import save_checkpoint
from tests.data.banks import make_bank
from tests.places import ROOT
from tests.tiny_run import files, folders, main, rows, tiny

N, K, Q = 4, 3, 15
SAMPLES = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training on centred features."""
    root = tmp_path_factory.mktemp("runs")
    leo = [f"--config={ROOT / 'configs' / 'leo.yaml'}", "--model.learner.latent_lr=20"]
    assert tiny(root, *leo, "--data.normalize=center_l2", command="fit") == 0
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


def classify(
    checkpoint: Path, *flags: str, support: str = "s.npz", query: str = "q.npz"
) -> list[dict[str, str]]:
    """Run the command; the rows that it writes."""
    words = [f"--ckpt_path={checkpoint}", f"--support={support}", f"--query={query}", "--out=p.csv"]
    assert main(["classify", *words, *flags]) == 0
    return rows(Path("p.csv"))


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


def test_names_stay_text_in_a_spreadsheet(run: Path):
    """Catches a class or image that a spreadsheet evaluates, a broken line, and changed numbers."""
    support, names, query, labels = write()
    other = dict(zip(np.unique(names), ("=1+1", "-1", "@a\n", "c"), strict=True))
    np.savez("s.npz", embeddings=support, labels=[other[name] for name in names])
    np.savez("q.npz", embeddings=query, labels=[other[name] for name in labels], keys=["=x"] * len(query))
    table = classify(best(run))
    assert (
        {row["class"] for row in table} == {"'=1+1", "-1", "'@a", "c"} >= {row["predicted"] for row in table}
    )
    assert {row["image"] for row in table} == {"'=x"}


def test_every_column_is_what_it_says(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches another normalisation, mean, classifier or order of classes, and an entropy in bits."""
    support, names, query, labels = write()
    table = classify(best(run), "--disagreement")
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


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (37, 45), (45, 45), (500, 1000)])
def test_the_interval_is_wilsons(hits: int, count: int):
    """Catches the interval of a normal distribution, which leaves 0 to 1 and is empty at its ends."""
    reference = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((reference.low, reference.high), abs=1e-5)


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
    state = EpisodeDataModule("synthetic", normalize=normalize).state_dict()  # pyright: ignore[reportArgumentType]
    assert (state["normalize"], state["mean"]) == (normalize, None)
    record = FeatureRecord.of({"EpisodeDataModule": state}, None)
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    expected = x if normalize == "none" else torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    assert record is not None
    torch.testing.assert_close(record.normalization(x), expected)


def test_a_record_has_no_control_characters():
    """Catches names of somebody's checkpoint that the terminal obeys."""
    state = EpisodeDataModule("synthetic", normalize="l2").state_dict() | {
        "provenance": {"backbone\n": "\x1b[2J"}
    }
    record = FeatureRecord.of({"EpisodeDataModule": state}, None)
    assert record is not None
    assert record.provenance == {"backbone?": "?[2J"}


def test_resuming_with_another_normalisation_renews_the_record(run: Path):
    """Catches a record that stands in the way of training on, or that the next checkpoint does not renew."""
    copy = Path(shutil.copytree(run, "copy"))
    more = ["--data.normalize=none", "--data.renormalize=true", "--trainer.max_steps=9"]
    assert main(["fit", f"--ckpt_path={copy / 'checkpoints/last.ckpt'}", *more]) == 0
    checkpoint = read_checkpoint(copy / "checkpoints" / "last.ckpt")
    assert checkpoint["EpisodeDataModule"]["normalize"] == "none"


def test_all_kinds_of_files_say_the_same(run: Path):
    """Catches a format whose rows or labels are read in another order, or demanded of queries."""
    support, names, query, labels = write()
    table = classify(best(run))
    np.save("s_embeddings.npy", support)
    Path("s_labels.txt").write_text("\n".join(names))
    torch.save({"x": torch.from_numpy(query), "targets": labels.tolist()}, "q.pt")
    assert classify(best(run), support="s_embeddings.npy", query="q.pt") == table
    save_bank(FeatureBank.from_arrays(support, names.tolist()), Path("s.safetensors"))
    np.save("u.npy", query.astype(np.float64))
    unlabelled = [{key: cell for key, cell in row.items() if key != "class"} for row in table]
    assert classify(best(run), support="s.safetensors", query="u.npy") == unlabelled
    bank = FeatureBank.from_arrays(query, labels.tolist(), [str(i) for i in range(len(query))])
    save_bank(bank, Path("q.safetensors"))
    named = classify(best(run), query="q.safetensors")
    assert sorted(named, key=lambda row: int(row["image"])) == table
    assert [row["class"] for row in named] == sorted(labels)


def test_predict_writes_where_it_is_told(run: Path):
    """Catches predictions of test tasks that ignore --out."""
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


def test_accuracy_counts_classes_of_the_support(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches queries of other classes that are counted, or not predicted, and labels matched by place."""
    _, _, query, labels = write(range(1, N))
    np.savez("q.npz", embeddings=query, labels=labels, image_names=[f"{i}.png" for i in range(len(query))])
    table, said = classify(best(run)), capsys.readouterr().out
    counted = [row for row in table if row["class"] != "test00"]
    hits = sum(row["predicted"] == row["class"] for row in counted)
    assert [row["image"] for row in table] == [f"{i}.png" for i in range(N * Q)]
    assert {row["predicted"] for row in table} == {"test01", "test02", "test03"}
    assert f"{Q} queries of classes that the support lacks ('test00')" in said
    low, high = (100 * bound for bound in wilson_interval(hits, 3 * Q))
    share = f"accuracy {100 * hits / (3 * Q):.2f} % of {3 * Q} queries"
    assert f"{share}, 95% interval {low:.2f} to {high:.2f} %" in said
    assert f"3 new classes, {K}-shot" in said


def test_no_accuracy_without_known_labels(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches an accuracy without labels, or of no query, and a column of classes that nobody knows."""
    _, _, query, _ = write(range(2))
    np.savez("q.npz", features=query)
    assert list(classify(best(run))[0])[:3] == ["image", "predicted", "status"]
    np.savez("q.npz", features=query, y=np.full(len(query), "other"))
    classify(best(run))
    said = capsys.readouterr().out
    assert "accuracy" not in said
    assert "60 queries of classes that the support lacks ('other')" in said


def test_a_checkpoint_alone_suffices(run: Path):
    """Catches a normalisation or a method that is looked for in the run's configuration or features."""
    write()
    table = classify(best(run))
    shutil.copy(best(run), "alone.ckpt")
    assert classify(Path("alone.ckpt")) == table
    assert {path.name for path in files(Path())} == {"s.npz", "q.npz", "alone.ckpt", "p.csv"}


def test_queries_are_taken_in_batches(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches queries that all lie in memory at once, are lost between batches, or are each adapted for.

    And codes, which take most of the time of large supports, that are made anew for the drawn classifiers.
    """
    write()
    table = classify(best(run), "--disagreement")
    adapted, coded, sizes = [], [], []
    stages, code, answer = LEO.stages, LEO.code, AdaptedClassifier.answer
    monkeypatch.setattr(LEO, "stages", lambda *args: adapted.append(1) or stages(*args))
    monkeypatch.setattr(LEO, "code", lambda *args: coded.append(1) or code(*args))

    def watched(self: AdaptedClassifier, query: torch.Tensor, disagreement: bool = False):
        sizes.append(len(query))
        return answer(self, query, disagreement)

    monkeypatch.setattr(AdaptedClassifier, "answer", watched)
    monkeypatch.setattr(new_classes, "QUERIES", 7)
    again = classify(best(run), "--disagreement")
    assert sizes == [7] * 8 + [4]
    assert len(adapted) == 2  # once for the answers, once for the drawn classifiers
    assert len(coded) == 1
    for name in ("probability", "entropy", "disagreement"):
        np.testing.assert_allclose(column(again, name), column(table, name), atol=2e-6)
    assert [row["predicted"] for row in again] == [row["predicted"] for row in table]


def saved(path: str, learner: Learner, record: FeatureRecord) -> Path:
    """A checkpoint of a learner."""
    save_checkpoint(Path(path), learner)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"EpisodeDataModule": record.state()}, path)
    return Path(path)


def test_the_centroid_with_unequal_shots(capsys: pytest.CaptureFixture[str]):
    """Catches a method without weights that is normalised otherwise, and disagreement made of nothing."""
    bank = make_bank(["a", "b", "c"], 12, split="test")
    save_bank(bank, Path("q.safetensors"))
    kept = [0, 1, 2, 3, 4, 12, 13, 24]  # 5, 2 and 1 of the classes
    x, numbers = bank.embeddings[kept].numpy(), bank.labels[kept].numpy()
    np.savez("s.npz", x=x, y=np.array(bank.class_names)[numbers])
    mean = torch.linspace(-1, 1, bank.embedding_size)
    record = FeatureRecord(Normalization("center_l2", mean), {}, {}, ())
    table = classify(saved("x.ckpt", NearestCentroid(), record), query="q.safetensors")
    unit = [
        (y - mean.numpy()) / np.linalg.norm(y - mean.numpy(), axis=1, keepdims=True)
        for y in (x, bank.embeddings.numpy())
    ]
    centroids = np.stack([unit[0][numbers == number].mean(0) for number in range(3)])
    distances = ((unit[1][:, None] - centroids) ** 2).sum(2)
    assert [row["predicted"] for row in table] == ["abc"[number] for number in distances.argmin(1)]
    expected = np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)
    np.testing.assert_allclose(column(table, "p(b)"), expected[:, 1], atol=2e-6)
    assert "3 new classes, 1 to 5-shot" in capsys.readouterr().out


def test_many_classes_have_no_column_each():
    """Catches a table of thousands of columns, and classes sorted as text that are numbers."""
    x = np.eye(30, dtype=np.float32)[:25]
    np.savez("s.npz", x=x, y=np.arange(25))
    np.savez("q.npz", x=x, y=np.arange(25))
    table = classify(saved("x.ckpt", NearestCentroid(), FeatureRecord(Normalization("l2"), {}, {}, ())))
    assert list(table[0]) == ["image", "class", "predicted", "status", "probability", "entropy", "distance"]
    assert [row["predicted"] for row in table] == [str(number) for number in range(25)]


def test_doubtful_features_are_noted(run: Path, capsys: pytest.CaptureFixture[str]):
    """Catches features of another backbone, or queries that were examples, without a word; and bfloat16."""
    support, names, _, _ = write()
    bank = FeatureBank.from_arrays(
        torch.from_numpy(support).bfloat16(), names.tolist(), None, {"backbone": "theirs"}
    )
    save_bank(bank, Path("s.safetensors"))
    content = torch.load(best(run), weights_only=True)
    content["EpisodeDataModule"]["provenance"]["backbone"] = "ours"
    torch.save(content, "x.ckpt")
    classify(Path("x.ckpt"), support="s.safetensors", query="s.safetensors")
    said = capsys.readouterr().out
    assert "note    s.safetensors was made by theirs, and the model was trained on features of ours" in said
    assert f"note    {N * K} of the queries are examples of the support, too" in said
    classify(best(run))
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("name", TRANSDUCTIVE)
def test_transductive_methods_see_all_queries(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Catches queries in batches, which would change the answers, and answers without a word about it."""
    support, names, query, _ = write()
    monkeypatch.setattr(adapted_classifier, "queries_at_once", lambda support: 2)
    flags = ["--support=s.npz", "--query=q.npz", f"--transductive={name}", "--out=p.csv"]
    assert main(["classify", *flags]) == 0
    said, learner = capsys.readouterr().out, ways.TRANSDUCTIVE[name]()
    assert "note    transductive: each answer depends on the other queries" in said
    assert ("note    it assumes that" in said) == bool(learner.assumes)
    x, y = (torch.nn.functional.normalize(torch.from_numpy(part), dim=-1) for part in (support, query))
    examples, classes = by_class(x, names)
    expected = learner.adapt(examples)(y[None])[0].softmax(-1).numpy()
    table = rows(Path("p.csv"))
    found = np.stack([column(table, f"p({name})") for name in classes], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_held_out_examples_are_not_for_a_transductive_method():
    """Catches an estimate of another method: one that sees other queries."""
    support = make_bank(["a", "b", "c"])
    with pytest.raises(InputError, match="TIM is transductive, and sees the queries together"):
        held_out(support, ways.transductive_way("tim").fit)


def test_help_names_the_methods_that_there_are():
    """Catches a method that the flag lacks; the help does not import them, since that takes seconds."""
    assert (AUTO, TRAINED, *ways.UNTRAINED) == METHODS
    assert tuple(ways.TRANSDUCTIVE) == TRANSDUCTIVE
    assert TRAINED == ways.TRAINED
