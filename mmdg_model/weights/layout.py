"""`Layout`: how one library names and stores the weights of a Vision Transformer, as a table of rules.

A layout file holds such a table and nothing else. `Layout.translate` applies it and refuses whatever does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from mmdg_model.config import Activation, EmbeddingNorm

#: Stands for the number of a block in the names of a rule.
BLOCK = "{block}"


class WeightImportError(ValueError):
    """Foreign weights cannot be imported; the message quotes the file, the keys and the remedy."""


class LayoutMismatchError(WeightImportError):
    """Weights do not fit the layout.

    Attributes:
        missing: names the layout needs and the file lacks.
        unused: names in the file that the layout does not know.
        misshapen: names with a shape that does not fit, each with what was found and what is needed.
    """

    def __init__(self, place: str, layout: str, *, missing: Iterable[str] = (), unused: Iterable[str] = (),
                 misshapen: Iterable[str] = ()) -> None:
        self.missing, self.unused, self.misshapen = list(missing), list(unused), list(misshapen)
        lists = (("missing", self.missing), ("unused", self.unused), ("misshapen", self.misshapen))
        super().__init__(f"weights {place}: not a whole set of layout {layout!r}: "
                         + "; ".join(f"{len(names)} {what}: {', '.join(names)}" for what, names in lists if names)
                         + "; nothing was imported: choose the layout that fits, or save the model again, whole")


class Result(StrEnum):
    """What weights of a layout become."""

    BACKBONE = "backbone"  # a pretrained ViT that training starts from; it decides nothing
    CHECKPOINT = "checkpoint"  # a whole MMDG
    MMDG_PLUS_PLUS = "mmdg_plus_plus"  # a whole MMDG++, in a file of its own kind


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One weight of ours and where a layout keeps it. Names may hold `BLOCK`.

    Attributes:
        target: our name.
        sources: the layout's names; several are joined along the first axis (query, key, value).
        leading_axes: axes of length 1 to put in front of what is stored.
        zeros: the layout has no such weight, which is to say zero; there are no sources then.
    """

    target: str
    sources: tuple[str, ...] = ()
    leading_axes: int = 0
    zeros: bool = False


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a ViT's weights imply but do not state.

    Attributes:
        layer_norm_eps, activation, embedding_norm: as in `ModelConfig`.
        pixel_mean, pixel_std: per channel of RGB in 0..1, the normalisation it was trained with; for the record.
    """

    layer_norm_eps: float
    activation: Activation = Activation.GELU
    embedding_norm: EmbeddingNorm = EmbeddingNorm.NONE
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of naming weights.

    Attributes:
        name, title: for the command line and for people.
        result: what the weights become.
        rules: every weight that is used, those of blocks once with `BLOCK`.
        left_out: (pattern, what it is): weights that belong to the layout and that nothing here needs.
        spellings: (pattern, replacement): other names of the same weights, applied before anything else.
        convention: see `Convention`.
    """

    name: str
    title: str
    result: Result
    rules: tuple[Rule, ...]
    convention: Convention
    left_out: tuple[tuple[str, str], ...] = ()
    spellings: tuple[tuple[str, str], ...] = ()

    def respelled(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same weights under the names of `rules`. Two that fall together stay apart, and will be refused."""
        respelled: dict[str, Tensor] = {}
        for name, weight in weights.items():
            plain = name
            for pattern, replacement in self.spellings:
                plain = re.sub(pattern, replacement, plain)
            respelled[name if plain in respelled or (plain != name and plain in weights) else plain] = weight
        return respelled

    def shown(self, name: str) -> str:
        """A name of `rules` as the library's own files have it."""
        return name

    def depth(self, names: Iterable[str]) -> int:
        """Blocks that `names` speak of: one more than the highest block number, 0 for none."""
        patterns = [re.compile(re.escape(source).replace(re.escape(BLOCK), "([0-9]{1,4})"))
                    for rule in self.rules for source in rule.sources if BLOCK in source]
        numbers = [int(match[1]) for name in names for pattern in patterns if (match := pattern.fullmatch(name))]
        return max(numbers, default=-1) + 1

    def expanded(self, depth: int) -> list[Rule]:
        """The rules with block numbers 0 to `depth` - 1 filled in."""
        expanded = []
        for rule in self.rules:
            for block in range(depth) if BLOCK in rule.target else (0,):
                expanded.append(Rule(target=rule.target.replace(BLOCK, str(block)),
                                     sources=tuple(source.replace(BLOCK, str(block)) for source in rule.sources),
                                     leading_axes=rule.leading_axes, zeros=rule.zeros))
        return expanded

    def compare(self, weights: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
        """Names that are needed and there, needed and missing, there and unknown."""
        names = self.respelled(weights)
        # A file with more numbers than names is not a deeper network; it must not make the list of names explode.
        depth = min(max(self.depth(names), 1), len(names) + 1)
        needed = [source for rule in self.expanded(depth) for source in rule.sources]
        known = set(needed)
        unknown = [name for name in names if name not in known and self.why_left_out(name) is None]
        return [n for n in needed if n in names], [n for n in needed if n not in names], unknown

    def match_score(self, weights: Mapping[str, Tensor]) -> float:
        """0 to 1: shared names over all names of file and layout, without those that may be left out."""
        there, missing, unknown = self.compare(weights)
        return len(there) / (len(there) + len(missing) + len(unknown))

    def why_left_out(self, name: str) -> str | None:
        """What a weight is that the layout knows and does not use; None for any other."""
        return next((what for pattern, what in self.left_out if re.fullmatch(pattern, name)), None)

    def translate(self, weights: Mapping[str, Tensor], place: str) -> Translation:
        """Weights under our names.

        Raises:
            LayoutMismatchError: a name too few or too many, or parts that cannot be joined.
        """
        _, missing, unused = self.compare(weights)
        if missing or unused:
            raise LayoutMismatchError(place, self.name, missing=map(self.shown, missing),
                                      unused=map(self.shown, unused))
        names = self.respelled(weights)
        translation = Translation(left_out={name: what for name in names if (what := self.why_left_out(name))})
        for rule in self.expanded(self.depth(names)):
            translation.sources[rule.target] = ", ".join(map(self.shown, rule.sources))
            if rule.zeros:
                translation.zeros.append(rule.target)
                continue
            parts = [names[source] for source in rule.sources]
            if len(parts) > 1 and any(part.shape != parts[0].shape or part.dim() == 0 for part in parts):
                translation.misshapen.append(f"{', '.join(rule.sources)}: {[tuple(part.shape) for part in parts]}, "
                                             "which cannot be joined")
                continue
            joined = parts[0] if len(parts) == 1 else torch.cat(parts)
            translation.weights[rule.target] = joined[(None,) * rule.leading_axes]
        if translation.misshapen:
            raise LayoutMismatchError(place, self.name, misshapen=translation.misshapen)
        return translation


@dataclass(kw_only=True)
class Translation:
    """Weights under our names, not yet compared with a network.

    Attributes:
        weights: by our name.
        zeros: our names whose value is zero, because the layout has no such weight.
        sources: the layout's names, by ours; for messages.
        left_out: the layout's names that were not needed, and what they are.
        misshapen: complaints about parts that could not be joined.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    zeros: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    misshapen: list[str] = field(default_factory=list)

    def checked(self, expected: Mapping[str, tuple[int, ...]], place: str, layout: str) -> dict[str, Tensor]:
        """The weights in float32, every one of the expected shape and finite.

        Raises:
            LayoutMismatchError: listing every weight of another shape.
            WeightImportError: NaN or infinity.
        """
        for name in self.zeros:
            self.weights[name] = torch.zeros(expected[name])
        misshapen = [f"{self.sources.get(name) or name} {tuple(self.weights[name].shape)}, needed {shape}"
                     for name, shape in expected.items()
                     if name in self.weights and tuple(self.weights[name].shape) != shape]
        missing = [name for name in expected if name not in self.weights]
        unused = [self.sources.get(name) or name for name in self.weights if name not in expected]
        if missing or misshapen or unused:
            raise LayoutMismatchError(place, layout, missing=missing, misshapen=misshapen, unused=unused)
        weights = {name: self.weights[name].detach().to(torch.float32).contiguous().clone() for name in expected}
        for name, weight in weights.items():
            if not bool(torch.isfinite(weight).all()):
                raise WeightImportError(f"weights {place}: {self.sources.get(name) or name} holds NaN or infinity "
                                        "(in float32); use an earlier or a whole file")
        return weights


def linear(target: str, *sources: str) -> tuple[Rule, Rule]:
    """Weight and bias of a layer under one name here and one or several there."""
    return (Rule(target=f"{target}.weight", sources=tuple(f"{source}.weight" for source in sources)),
            Rule(target=f"{target}.bias", sources=tuple(f"{source}.bias" for source in sources)))
