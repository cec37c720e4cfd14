"""Compare LEO and the reference LEO with numbers that the authors' own code produced.

    python tests/parity.py tests/fixtures/*.npz

prints the largest absolute difference of every quantity of each fixture for both, and exits with 1 if one is
above its tolerance. `tests/fixtures/README.md` describes the format; sizes, steps and weights of the
penalties are all read from the file.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from leo_lightning.data.episode import Episode
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.noise import NO_NOISE, Noise
from leo_lightning.learners.reference.leo import ReferenceLEO
from leo_lightning.training.clipping import clip_

ADAM_RATE = 1e-3
KINDS = {"LEO": LEO, "reference LEO": ReferenceLEO}
Either = LEO | ReferenceLEO

RATES = ("inner_lr", "finetuning_lr")
VARIABLES = ("w_encoder", "w_relation_0", "w_relation_1", "w_relation_2", "w_decoder", *RATES)
INPUTS = (
    *VARIABLES,
    *("tr_input", "tr_output", "val_input", "val_output", "variable_order"),
    *("eps_encoder", "eps_decoder", "mask_encoder", "mask_support", "mask_query"),
)
SETTINGS = (
    *("inner_unroll_length", "finetuning_unroll_length", "dropout_rate", "kl_weight"),
    *("encoder_penalty_weight", "l2_penalty_weight", "orthogonality_penalty_weight"),
)
# results of every fixture, and those that only the small ones in float64 hold
RESULTS = (
    *("total_loss", "accuracy", "code_params", "latents_init", "latents_adapted", "val_logits"),
    *("classifier_weights_latent", "classifier_weights_final", "val_ce", "l2_term", "orthogonality_term"),
)
STEPS = (
    *("latents_steps", "inner_loss_steps", "decoder_weights_steps", "finetune_weights_steps"),
    *("finetune_loss_steps", "val_ce_per_example", "kl", "encoder_penalty"),
)
GRADIENTS = ("grad_raw_", "grad_clipvalue_", "grad_clipped_", "adam1_", "adam2_", "adam3_")


class Row(NamedTuple):
    """One quantity: how far apart, and how far it may be."""

    quantity: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """NaN, for a quantity that one side lacks, fails."""
        return self.difference <= self.tolerance


class Fixture:
    """The authors' numbers as our objects."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.training = any(name.startswith(("eps_", "mask_", "grad_", "adam")) for name in arrays)
        absent = [name for name in self.required_inputs() if name not in arrays]
        if absent:
            raise ValueError(f"not a fixture: there is no {', '.join(absent)}")
        self.single = self.arrays["tr_input"].dtype == np.float32
        self.latent_steps = int(self.arrays["cfg_inner_unroll_length"])
        self.finetuning_steps = int(self.arrays["cfg_finetuning_unroll_length"])

    @classmethod
    def read(cls, path: Path) -> "Fixture":
        with np.load(path, allow_pickle=False) as file:
            return cls({key: file[key] for key in file.files})

    def required_inputs(self) -> list[str]:
        names = [name for name in INPUTS if not name.startswith(("eps_", "mask_", "variable_order"))]
        names += [f"cfg_{name}" for name in SETTINGS]
        if self.training:
            names += ["eps_encoder", "eps_decoder"]
            if self.arrays.get("cfg_dropout_rate", 0) > 0:
                names += ["mask_encoder", "mask_support", "mask_query"]
        return names

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.arrays.get("meta_loss", 0.0)))

    def required_results(self) -> list[str]:
        """Arrays that the fixture must hold so that nothing goes unchecked."""
        if self.single:
            return [prefix + name for prefix in ("", "f64_") for name in RESULTS]
        names = [*RESULTS, *STEPS]
        if self.training:
            names.append("meta_loss")
            if self.finite:
                names += [prefix + name for prefix in GRADIENTS for name in self.used_variables()]
        return names

    def used_variables(self) -> list[str]:
        """The authors' variables but for a rate that no step uses, which is no parameter here."""
        steps = {"inner_lr": self.latent_steps, "finetuning_lr": self.finetuning_steps}
        return [name for name in VARIABLES if steps.get(name, 1)]

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(self.arrays[name]).to(dtype)

    def learner(self, dtype: torch.dtype, kind: type[Either] = LEO) -> Either:
        """A LEO that holds the fixture's weights."""
        cfg = {
            key.removeprefix("cfg_"): self.arrays[key].item() for key in self.arrays if key.startswith("cfg_")
        }
        embedding_size, num_latents = self.arrays["w_encoder"].shape
        leo = kind(
            embedding_size=embedding_size,
            num_latents=num_latents,
            latent_steps=self.latent_steps,
            finetuning_steps=self.finetuning_steps,
            dropout=cfg["dropout_rate"],
            kl_weight=cfg["kl_weight"],
            encoder_penalty_weight=cfg["encoder_penalty_weight"],
            l2_penalty_weight=cfg["l2_penalty_weight"],
            orthogonality_penalty_weight=cfg["orthogonality_penalty_weight"],
        ).to(dtype)
        with torch.no_grad():
            for name, parameter in variables(leo).items():
                parameter.copy_(ours(self.tensor(name, dtype)))
        return leo.train(self.training)

    def episode(self, dtype: torch.dtype) -> Episode:
        for name in ("tr_output", "val_output"):
            rows = np.arange(self.arrays[name].shape[1])[:, None, None]
            if (self.arrays[name] != rows).any():
                raise ValueError(f"{name}: a label must be its class's row")
        return Episode(self.tensor("tr_input", dtype), self.tensor("val_input", dtype))

    def masks(self, name: str, dtype: torch.dtype) -> Tensor | None:
        if name not in self.arrays:
            return None
        return self.tensor(name, dtype) / (1 - self.arrays["cfg_dropout_rate"].item())

    def noise(self, dtype: torch.dtype) -> Noise:
        if not self.training:
            return NO_NOISE
        masks = self.masks("mask_support", dtype)
        return Noise(
            latents=self.tensor("eps_encoder", dtype),
            weights=self.tensor("eps_decoder", dtype).transpose(0, 1),
            encoder_mask=self.masks("mask_encoder", dtype),
            support_masks=None if masks is None else masks.transpose(0, 1)[:-1],
            query_mask=self.masks("mask_query", dtype),
        )

    @property
    def has_clamped_stds(self) -> bool:
        raw = self.arrays["code_params"][..., self.arrays["w_encoder"].shape[1] :]
        return self.training and bool((np.exp(raw) - 1 < objectives.MIN_STD).any())


def variables(leo: Either) -> dict[str, Tensor]:
    """Our parameters under the authors' names, but for a rate that no step uses."""
    layers = [module for module in leo.relation_net.modules() if isinstance(module, nn.Linear)]
    named = {"w_encoder": leo.encoder.weight, "w_decoder": leo.decoder.weight}
    named |= {f"w_relation_{i}": layer.weight for i, layer in enumerate(layers)}
    if leo.latent_steps:
        named["inner_lr"] = leo.alpha
    if leo.finetuning_steps:
        named["finetuning_lr"] = leo.eta
    return named


def ours(array: Tensor) -> Tensor:
    """The authors' layout to ours: weights are (in, out) there, rates (1, 1, size)."""
    return array.flatten() if array.ndim == 3 else array.T


def theirs(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, 1, -1) if tensor.ndim == 1 else tensor.T


def forward_values(fixture: Fixture, leo: Either, dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    """All values of the fixture that a forward pass holds, and the meta-loss with its graph."""
    episode, noise = fixture.episode(dtype), fixture.noise(dtype)
    if isinstance(leo, ReferenceLEO):
        values, loss = reference_values(leo, episode, noise)
    else:
        values, loss = leo_values(leo, episode, noise)
    N, T = episode.support.shape[1], leo.latent_steps
    masks = fixture.masks("mask_support", dtype)
    masks = torch.ones(1, 1 + T + 1 + leo.finetuning_steps, 1, 1, 1) if masks is None else masks

    def support_losses(copies: Tensor, masks: Tensor) -> Tensor:
        images = episode.support[:, None] * masks[:, : copies.shape[1]]
        logits = torch.einsum("bsnke,bsme->bsnkm", images, copies.mean(3))
        return -logits.log_softmax(-1).diagonal(dim1=2, dim2=4).transpose(2, 3)

    logits, latents, decoded = values["val_logits"], values["latents_steps"], values["decoder_weights_steps"]
    tuned, regularisers = values["finetune_weights_steps"], values["l2_term"] + values["orthogonality_term"]
    nll = -logits.log_softmax(-1).diagonal(dim1=1, dim2=3).transpose(1, 2)
    total = values["val_ce"] + leo.kl_weight * values["kl"] + regularisers
    total = total + leo.encoder_penalty_weight * values["encoder_penalty"]
    hits = (logits.argmax(-1) == torch.arange(N)[:, None]).to(dtype).flatten(1).mean(1)
    values |= {
        "latents_init": latents[:, 0],
        "latents_adapted": latents[:, -1],
        "inner_loss_steps": support_losses(decoded, masks),
        "classifier_weights_latent": decoded[:, -1],
        "finetune_loss_steps": support_losses(tuned, masks[:, T:]),
        "classifier_weights_final": tuned[:, -1],
        "val_ce_per_example": nll,
        "total_loss": total,
        "accuracy": hits,
        "meta_loss": loss,
        "runner_loss": total.mean(),
        "runner_accuracy": hits.mean(),
    }
    return {name: value.detach() for name, value in values.items()}, loss


def reference_values(leo: ReferenceLEO, episode: Episode, noise: Noise) -> tuple[dict[str, Tensor], Tensor]:
    """Values of the reference LEO, which keeps all copies of codes and classifiers."""
    outcome = leo(episode.support, episode.query, noise)
    values = {
        "code_params": outcome.code,
        "latents_steps": torch.stack(outcome.latents, 1),
        "decoder_weights_steps": torch.stack(outcome.decoded, 1),
        "finetune_weights_steps": torch.stack(outcome.weights, 1),
        "val_logits": outcome.logits,
        "val_ce": outcome.task_terms["cross_entropy"],
        "kl": outcome.task_terms["kl"],
        "encoder_penalty": outcome.task_terms["encoder_penalty"],
        "l2_term": outcome.regularisers["l2_penalty"],
        "orthogonality_term": outcome.regularisers["orthogonality_penalty"],
    }
    return values, outcome.loss


def leo_values(leo: LEO, episode: Episode, noise: Noise) -> tuple[dict[str, Tensor], Tensor]:
    """Values of LEO, and the copies that it does without."""
    K = episode.support.shape[2]
    adaptation, outcome = leo.adaptation(episode.support, noise), leo.outcome(episode, noise)
    code = leo.relation_net(
        leo.encoder(episode.support if noise.encoder_mask is None else episode.support * noise.encoder_mask)
    )
    latents = torch.stack(adaptation.latents, 1).expand(-1, -1, -1, K, -1)
    mean, raw = F.linear(latents, leo.decoder.weight).chunk(2, -1)
    copies = mean
    if noise.weights is not None:
        std = objectives.std_from_raw(raw, (2 / (mean.shape[2] + mean.shape[-1])) ** 0.5)
        copies = mean + noise.weights.transpose(0, 1) * std
    tuned = [fine_tuned(leo, episode, noise, steps) for steps in range(leo.finetuning_steps + 1)]
    tuned = torch.stack(tuned, 1)
    ce = objectives.query_cross_entropy(outcome.logits, None)
    kl = penalty = torch.zeros_like(ce)
    if noise.latents is not None:
        z = adaptation.latents[0]
        kl = objectives.kl_divergence(noise.latents, adaptation.code_std[:, :, None].expand_as(z), z)
        penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
    regularisers = leo.regularisers()
    values = {
        "code_params": code[:, :, None].expand(-1, -1, K, -1),
        "latents_steps": latents,
        "decoder_weights_steps": copies,
        # all copies take the same steps
        "finetune_weights_steps": copies[:, -1:] + (tuned - tuned[:, :1])[:, :, :, None],
        "val_logits": outcome.logits,
        "val_ce": ce,
        "kl": kl,
        "encoder_penalty": penalty,
        "l2_term": regularisers["l2_penalty"],
        "orthogonality_term": regularisers["orthogonality_penalty"],
    }
    return values, outcome.loss


def fine_tuned(leo: LEO, episode: Episode, noise: Noise, steps: int) -> Tensor:
    """The classifier after so many fine-tuning steps; without dropout LEO keeps only the last one."""
    all_steps, leo.finetuning_steps = leo.finetuning_steps, steps
    masks = noise.support_masks
    if masks is not None:
        noise = noise._replace(support_masks=masks[: leo.latent_steps + steps])
    try:
        return leo.adaptation(episode.support, noise).weights[-1]
    finally:
        leo.finetuning_steps = all_steps


def gradient_values(fixture: Fixture, leo: Either, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every gradient before and after clipping, and the weights after 1, 2, 3 steps of TensorFlow's Adam."""
    values, moments = {}, {}
    for step in (1, 2, 3):
        _, loss = forward_values(fixture, leo, dtype)
        named = variables(leo)
        raw = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        clipped = {name: gradient.clone() for name, gradient in raw.items()}
        clip_(list(clipped.values()), 0.1, 0.1)
        for name, weight in named.items():
            if step == 1:
                values[f"grad_raw_{name}"] = theirs(raw[name])
                values[f"grad_clipvalue_{name}"] = theirs(raw[name].clamp(-0.1, 0.1))
                values[f"grad_clipped_{name}"] = theirs(clipped[name])
            m, v = moments.get(name, (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * clipped[name], 0.999 * v + 0.001 * clipped[name].square()
            moments[name] = m, v
            rate = ADAM_RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
            with torch.no_grad():
                weight -= rate * m / (v.sqrt() + 1e-8)
            values[f"adam{step}_{name}"] = theirs(weight.detach().clone())
    return values


def tolerance(quantity: str, fixture: Fixture) -> float:
    """Tolerance that `tests/fixtures/README.md` grants; 1e-9 where it names none."""
    if quantity.startswith("f64_"):
        return 1e-10
    if fixture.single:
        return 1e-6
    if quantity == "encoder_penalty" or quantity.startswith("adam"):
        return 1e-7
    if quantity == "kl" and "code_params" in fixture.arrays and fixture.has_clamped_stds:
        return 1e-8
    return 1e-9


def difference(mine: Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference, in the precision the authors stored; NaN matches NaN only."""
    if mine.shape != expected.shape:
        return float("inf")
    a, b = mine.numpy().astype(expected.dtype).astype(np.float64), expected.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~both], b[~both], equal_nan=True):
        return float("inf")
    return float(np.abs(a[both] - b[both]).max(initial=0.0))


def compare(path: Path, kind: type[Either] = LEO) -> list[Row]:
    """Every quantity of one fixture."""
    fixture = Fixture.read(path)
    values: dict[str, Tensor] = {}
    expected = fixture.arrays
    if fixture.single:
        values |= forward_values(fixture, fixture.learner(torch.float32, kind), torch.float32)[0]
        double, _ = forward_values(fixture, fixture.learner(torch.float64, kind), torch.float64)
        values |= {f"f64_{name}": value for name, value in double.items()}
    else:
        values |= forward_values(fixture, fixture.learner(torch.float64, kind), torch.float64)[0]
        if fixture.training and fixture.finite:
            values |= gradient_values(fixture, fixture.learner(torch.float64, kind), torch.float64)
    rows = []
    for name in dict.fromkeys([*expected, *fixture.required_results()]):
        if name in values and name in expected:
            rows.append(Row(name, difference(values[name], expected[name]), tolerance(name, fixture)))
        elif name not in expected or is_result(name, fixture):
            rows.append(Row(name, float("nan"), tolerance(name, fixture)))
    if not fixture.finite and kind is LEO:
        rows.append(Row("bad step leaves all weights as they were", bad_step_change(fixture), 0.0))
    return rows


def is_result(name: str, fixture: Fixture) -> bool:
    """Whether the fixture's array is a number that we must have computed."""
    if name in INPUTS or name.startswith("cfg_"):
        return False
    if not name.startswith(GRADIENTS):
        return True
    # the authors answer a bad step with other gradients; here the step is skipped
    unused = [variable for variable in VARIABLES if variable not in fixture.used_variables()]
    return fixture.finite and not name.endswith(tuple(unused))


def bad_step_change(fixture: Fixture) -> float:
    """Largest change of a weight by one training step on the fixture's non-finite batch."""
    from leo_lightning.training.meta_learner import MetaLearner

    leo = fixture.learner(torch.float64, LEO)
    before = {name: weight.detach().clone() for name, weight in variables(leo).items()}
    system = MetaLearner(leo)
    optimizer = system.configure_optimizers()
    _, loss = forward_values(fixture, leo, torch.float64)
    loss.backward()
    system.configure_gradient_clipping(optimizer)
    optimizer.step()
    after = {name: weight.detach() for name, weight in variables(leo).items()}
    return max(float((after[name] - before[name]).abs().max()) for name in before)


def main(argv: list[str] | None = None) -> int:
    """Print a table per fixture and LEO; 1 if anything is out of tolerance."""
    parser = argparse.ArgumentParser(description="Compare both LEOs with numbers of the authors' code.")
    parser.add_argument("fixtures", nargs="+", type=Path, metavar="FIXTURE")
    failures = 0
    for path, name in itertools.product(parser.parse_args(argv).fixtures, KINDS):
        print(f"{path.name}, {name}")
        try:
            rows = compare(path, KINDS[name])
        except ValueError as error:
            print(f"  FAIL  {error}")
            failures += 1
            continue
        for row in rows:
            failures += not row.passed
            mark = "ok" if row.passed else "FAIL"
            print(f"  {mark:4}  {row.quantity:42} {row.difference:9.2e}  (tolerance {row.tolerance:.0e})")
    print(f"{failures} failed" if failures else "all quantities within tolerance")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
