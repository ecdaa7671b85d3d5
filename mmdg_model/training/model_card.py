"""The model card of shipped weights, from manifest and figures of an evaluation. No figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmdg_model.scorer import Purpose
from mmdg_model.shipped_weights import Manifest

_WARNING = """\
**Trained on simulated data only. There is no evidence of performance on real people, real attacks or real cameras.**
Every person, attack and sensor that these weights have seen was rendered. Figures below are simulated figures.
"""
_USE = """\
## What they are for
Demonstrations, tests of a decision without a camera or a mask, regression tests of an integration, and a starting point
for training on real data. `make demo` runs them.

## What they are not for
Deciding about anybody. The checkpoint's purpose is `simulated`: on a camera or recording that is not simulated every
session ends `undecided` (`model_unverified`), whatever the policy says; the kiosk client refuses what they decide.
For real use train on real data (docs/training.md), calibrate and evaluate on real sessions, and name that checkpoint.

## Limits
- The simulator's attacks are the species of docs/simulator.md; others were never seen. Materials and sensors are models
  with sourced constants, not measurements of one camera.
- Identities come from a parametric head and a few skin, hair and accessory models: far less variety than people have.
  Rates by skin tone, glasses and hair in simulation say nothing about rates for people.
- Scores are calibrated on simulated sessions only; on anything else they are numbers without a meaning.
"""


def model_card(manifest: Manifest, evaluation: Mapping[str, Any] | None, *, shape: str) -> str:
    """The card as Markdown.

    Args:
        evaluation: figures as JSON holds them, None where nobody has evaluated the file yet.
        shape: of the network, in words.

    Raises:
        ValueError: weights that are not of purpose `simulated`: this card would be untrue of them.
    """
    if manifest.purpose is not Purpose.SIMULATED or not manifest.simulated:
        raise ValueError(f"purpose is {manifest.purpose}, this card describes weights trained on simulated data")
    rows = [
        ("file", f"`default.safetensors`, {manifest.bytes / 1e6:.2f} MB, float16, SHA-256 `{manifest.sha256}`"),
        ("network", shape),
        ("method", (f"{manifest.method}, protocol {manifest.protocol} (simulated sources "
                    f"{', '.join(manifest.sources)}), seed {manifest.seed}, epoch {manifest.epoch}")),
        ("goes on from", (f"checkpoint `{manifest.start_sha256[:12]}` of the first stage (all simulated domains)"
                          if manifest.start_sha256 else "nothing: weights were drawn at random")),
        ("run", (f"`{manifest.run}`, recipe SHA-256 `{manifest.recipe_sha256[:12]}`, data "
                 f"`{manifest.data_fingerprint[:12]}`")),
        ("difficulty specification", f"SHA-256 `{manifest.specification_sha256[:12]}`"
         if manifest.specification_sha256 else "none named"),
        ("trained by", manifest.trained_by), ("written by", manifest.made_by),
        ("float16 against float32", f"known-answer logits differ by {manifest.float16_deviation:.2g} of the largest"),
        ("made again by", "`make train-default`"),
    ]
    lines = ["# Model card: the default weights", "", _WARNING, "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows]
    lines += ["", _USE, "## Operating point (simulated sessions)"]
    point = manifest.operating_point
    if point is None:
        lines += ["Not calibrated yet: logits are taken as they are."]
    else:
        lines += [
            (f"LLR of a frame = {point.logit_scale:.4g} · logit {point.logit_offset:+.4g}; correlation of successive "
             f"frames {point.frame_correlation:.3f}; sessions are accepted at {point.threshold:.2f} nats or Wald's "
             "bound, whichever is more."),
            (f"There, on the {point.sessions} {point.data} sessions it was fitted on: worst-species APCER "
             f"{point.apcer:.1%}, BPCER {point.bpcer:.1%} (no bound; they are the fit's own sessions)."),
            f"Measured by `{point.command}`."]
    lines += ["", "## Figures (simulated sessions)"]
    if evaluation is None:
        lines += ["Not evaluated yet: `make evaluate-default` writes the figures that belong here."]
    else:
        lines += [f"From the evaluation file with SHA-256 `{(manifest.evaluation_sha256 or '')[:12]}`.", "",
                  *_rendered(evaluation)]
    return "\n".join(lines).rstrip() + "\n"


def _rendered(values: Mapping[str, Any]) -> list[str]:
    """Scalars as a list; a list of records, or a mapping of records, as a table."""
    lines = [f"- {key}: {_cell(value)}" for key, value in values.items() if not isinstance(value, Mapping | list)]
    for key, value in values.items():
        if isinstance(value, Mapping) and value and all(isinstance(row, Mapping) for row in value.values()):
            value = [{key: name, **row} for name, row in value.items()]
        if isinstance(value, Mapping):
            lines += ["", f"**{key}**", "", *(f"- {name}: {_cell(one)}" for name, one in value.items())]
        elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            lines += ["", f"**{key}**", "", *_table(value)]
        elif isinstance(value, list):
            lines += [f"- {key}: {_cell(value)}"]
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns),
            *("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")
