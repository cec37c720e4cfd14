"""State dicts as people save them: in a section of a file, with a prefix, or under other names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, printable
from leo_lightning.data.bank import listed

Sections = Mapping[str, Mapping[str, Tensor]]
"""The tensors of a file by name, in each section that holds any; a section in another is `outer.inner`."""
_COMPILED = "_orig_mod."  # torch.compile puts it into names
_COUNT = "num_batches_tracked"  # old files lack it, and no embedding depends on it
_DEPTH = 2


class _Match(NamedTuple):
    place: str
    """Section and prefix of the names, such as `state_dict.module.encoder`."""
    weights: dict[str, Tensor]
    """The tensors that have the network's names, by these."""
    surplus: list[str]
    """Other tensors with this prefix."""


def sections(content: Mapping[Any, Any], name: str = "", depth: int = _DEPTH) -> dict[str, dict[str, Tensor]]:
    """Find the sections of a file that hold tensors."""
    tensors = {
        key.replace(_COMPILED, ""): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    found = {name: tensors} if tensors else {}
    if depth:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Mapping):
                found |= sections(value, f"{name}.{key}".lstrip("."), depth - 1)
    return found


def fitting(
    needed: Mapping[str, Tensor], found: Sections, place: str, source: str, network: str
) -> tuple[dict[str, Tensor], str | None]:
    """Find the weights of a network in a file.

    The names may have any prefix. Tensors under other names are taken in order if nothing is left to guess:
    see `_in_order`. Tensors of a classifier, and missing counts of batches, do not matter.

    Args:
        needed: the network's own state dict.
        found: the tensors of the file.
        place: the section, or section and prefix, to take; empty: the first one that fits.
        source: name of the file, for messages.
        network: name of the network, for messages.

    Returns:
        The state dict to load, and a line that the user should read, if there is one.

    Raises:
        InputError: the file has no such place, or does not fit; the line names a tensor.
    """
    shapes = {name: value.shape for name, value in needed.items() if not name.endswith(_COUNT)}
    candidates = [match for section in found.items() for match in _matches(*section, needed)]
    inside = [match for match in candidates if f"{match.place}.".startswith(f"{place}.") or not place]
    if place and not inside:
        places = listed([match.place for match in candidates if match.place] or list(found), 10)
        raise InputError(
            f"{source}: has no weights of {network} in {printable(place)!r}; it has {printable(places)}"
        )
    whole = [
        match
        for match in inside
        if all(name in match.weights and match.weights[name].shape == shape for name, shape in shapes.items())
        and not _more_blocks(match, shapes)
    ]
    note = None
    if whole:
        weights = whole[0].weights
        others = [
            m.place
            for m in whole[1:]
            if any(not torch.equal(weights[name], m.weights[name]) for name in shapes)
        ]
        if others:
            taken, other = printable(whole[0].place) or "the outermost", printable(others[0])
            places = ", ".join((taken, *map(printable, others)))
            note = (
                f"{source}: holds these weights more than once ({places}); {taken} is taken; for another, "
                f"name {source}:{other}"
            )
    elif (ordered := _in_order(shapes, found, place)) is not None:
        weights = ordered
        note = (
            f"{source}: its tensors have other names than those of {network}, but the same kinds and shapes "
            "in the same order; they are taken in this order"
        )
    else:
        raise InputError(
            f"{source}: does not fit {network} with these options: {_difference(inside, shapes)}"
        )
    counts = {name: value for name, value in needed.items() if name not in shapes}
    kept = {name: value for name, value in weights.items() if name in shapes or value.dim() == 0}
    return counts | kept, note


def _matches(section: str, tensors: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> Iterator[_Match]:
    """Yield the tensors under each prefix that some names of the network have, as in the file's order."""
    prefixes = Counter(
        name[:start]
        for name in tensors
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        if name[start:] in needed
    )
    for prefix in prefixes:
        inner = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        weights = {name: value for name, value in inner.items() if name in needed}
        place = ".".join(part for part in (section, prefix.removesuffix(".")) if part)
        yield _Match(place, weights, [name for name in inner if name not in needed])


def _more_blocks(match: _Match, shapes: Mapping[str, torch.Size]) -> list[str]:
    """List what a deeper network of the same kind has: the same names with higher numbers."""
    patterns = {_pattern(name) for name in shapes}
    return [name for name in match.surplus if _pattern(name) in patterns]


def _pattern(name: str) -> str:
    return re.sub(r"\b\d+\b", "#", name)


def _in_order(shapes: Mapping[str, torch.Size], found: Sections, place: str) -> dict[str, Tensor] | None:
    """Return tensors under other names by the network's names, or None.

    They must be as many, with the same shapes and kinds (weight, bias, running_mean, …) in the same order;
    a linear classifier may follow. Only convolutions and normalization: the matrices of an attention have one
    shape and no usual order.
    """
    if any(len(shape) == 2 for shape in shapes.values()):
        return None
    for section, tensors in found.items():
        rows = [(name, value) for name, value in tensors.items() if not name.endswith(_COUNT)]
        head = [(_kind(name), value.dim()) for name, value in rows[len(shapes) :]]
        if place in ("", section) and head in ([], [("weight", 2)], [("weight", 2), ("bias", 1)]):
            pairs = list(zip(shapes.items(), rows, strict=False))
            if len(pairs) == len(shapes) and all(
                (_kind(mine), shape) == (_kind(theirs), value.shape)
                for (mine, shape), (theirs, value) in pairs
            ):
                return {mine: value for (mine, _), (_, value) in pairs}
    return None


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _difference(matches: list[_Match], shapes: Mapping[str, torch.Size]) -> str:
    """Say what is wrong with the best match."""
    best = max(matches, key=lambda match: len(match.weights), default=_Match("", {}, []))
    missing = [name for name in shapes if name not in best.weights]
    if missing:
        return f"it lacks {len(missing):,} of {len(shapes):,} tensors ({listed(missing, 3)})"
    for name, shape in shapes.items():
        if (theirs := best.weights[name].shape) != shape:
            return f"{name} has the shape {tuple(theirs)}, not {tuple(shape)}"
    more = _more_blocks(best, shapes)
    return f"it belongs to a larger network, with {len(more):,} more tensors ({printable(listed(more, 3))})"
