"""The paper's Fig. 7 from our runs: where MMDG is uncertain and what its adapters attend to, on faces of the target.

Needs a run of MMDG with its checkpoints and its data in place; the report goes without where they are not.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from calibration.error_rates import Unit
from mmdg_model.explain import explain
from mmdg_model.explanation_figure import draw_explanation
from mmdg_model.inputs import PreparedInputs
from mmdg_model.network import MMDG
from mmdg_model.training.evaluation import Column
from mmdg_model.training.listed_assembly import ListedAssembly, machine_of
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.report.figures import DrawnFigure
from mmdg_model.training.report.run_kinds import is_whole
from mmdg_model.training.report.run_results import Collection, ReportRow, RunResult
from mmdg_model.training.report.section import Section
from mmdg_model.training.report.tables import column_title, describe_runs
from mmdg_model.training.run_assembly import Assembly
from mmdg_model.training.run_directory import RunDirectoryError

_TITLE = "Fig. 7: uncertainty and attention"
_TEXT = ("The paper's Fig. 7 lays the U-Adapters' uncertainty and what their cross-attention looks at over faces of "
         "the three modalities. Ours shows the same two maps of the last block for the first bona fide face and the "
         "first attack of a target's test list, at the honest epoch: token uncertainty 1 - U, and the attention that "
         "each patch receives from the other modality. Uncertainty is the size of activations, not a probability of "
         "error (docs/model.md). The pictures show faces: treat them like the data.")


def certainty_pictures(collection: Collection, *, draw: bool = True,
                       assembly: Assembly | None = None) -> Section | None:
    """One picture a label, of the first run of `mmdg`; None where no such run was evaluated.

    Args:
        draw: False leaves the faces out and says so.
        assembly: how its data and network are opened; the data sets' lists by default.
    """
    row = next((row for row in collection.rows if row.method == "mmdg" and is_whole(row)), None)
    if row is None:
        return None
    run = row.runs[sorted(row.runs)[0]]
    if not draw:
        return Section(title=_TITLE, page="fig-7", text=(_TEXT,), lines=("Pictures were not asked for.",))
    try:
        figures = tuple(_pictures(row, run, assembly or ListedAssembly()))
    except (RunDirectoryError, OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        return Section(title=_TITLE, page="fig-7", text=(_TEXT,),
                       lines=(f"No picture: its checkpoint or its data are not at hand ({why}).",))
    return Section(title=_TITLE, page="fig-7", text=(_TEXT,), figures=figures)


def _pictures(row: ReportRow, run: RunResult, assembly: Assembly) -> Iterator[DrawnFigure]:
    epoch = run.evaluation.choice(Column.HONEST, Unit.VIDEO).epoch
    state, model_hash = run.directory.load_epoch(epoch)
    opened = assembly.open(run.directory, machine_of(run.directory))
    try:
        network = opened.method.network
        network.load_state_dict(state)
        if not isinstance(network, MMDG):
            raise ValueError(f"{run.directory.path}: its network has no U-Adapters to look at")
        network.eval()
        wanted = {True: "bona fide", False: "attack"}
        for batch in opened.data.test(Scenario.COMPLETE):
            for place, sample in enumerate(batch.samples):
                if (label := wanted.pop(sample.bona_fide, None)) is None:
                    continue
                inputs = PreparedInputs(batch.inputs.planes[place:place + 1], batch.inputs.present[place:place + 1])
                what = label if sample.bona_fide else f"{label}, {sample.species}"
                found = explain(network.cpu(), torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "picture.png"
                    draw_explanation(path, found, inputs, opened.data.inputs, block=network.config.depth - 1,
                                     title=f"{'simulated data, ' if opened.data.simulated else ''}{what}, target "
                                           f"{sample.domain}, model {model_hash[:12]}")
                    png = path.read_bytes()
                yield DrawnFigure(
                    name=f"fig-7-{label.replace(' ', '-')}", png=png, svg=_wrapped(png),
                    caption=f"{what} of {sample.domain}'s test list, {row.label} trained on the sources of "
                            f"{column_title(run.config.protocol)}, seed {run.config.seed}, epoch {epoch}. "
                            f"{describe_runs([row])}")
            if not wanted:
                return
    finally:
        opened.data.close()


def _wrapped(png: bytes) -> str:
    """A bitmap as the page's figures are: SVG, nothing fetched."""
    width, height = (int(each) for each in np.frombuffer(png[16:24], dtype=">u4"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
            f'<image width="{width}" height="{height}" href="data:image/png;base64,'
            f'{base64.b64encode(png).decode()}"/></svg>')
