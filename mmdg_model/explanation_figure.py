"""The picture of an explanation: uncertainty and adapter attention laid over the inputs, as in the paper's Fig. 7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdg_model.explain import Explanation
from mmdg_model.inputs import InputSpecification, PreparedInputs
from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality

#: Opacity of the maps over the images.
OVERLAY = 0.6


def draw_explanation(path: Path, explanation: Explanation, inputs: PreparedInputs, specification: InputSpecification, *,
                     block: int, title: str, row: int = 0) -> None:
    """Writes a PNG: a line a modality with its input, its token uncertainty, and what attends to it in its adapters.

    One colour scale for all uncertainties, one for all attention, both beside the picture. Patches are drawn as
    the squares they are, without smoothing. A muted modality is grey and says so.

    Args:
        path: of the PNG; its folder is made.
        explanation, inputs, specification: of the same batch.
        block: 0 .. depth - 1.
        title: first line.
        row: of the batch.

    Raises:
        ValueError: no such block or row. ModuleNotFoundError: without matplotlib, naming the extra.
    """
    depth, rows = explanation.uncertainty.shape[0], len(inputs.present)
    if not 0 <= block < depth or not 0 <= row < rows:
        raise ValueError(f"block {block} of row {row}, expected blocks 0 to {depth - 1} and rows 0 to {rows - 1}")
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("figures need matplotlib: pip install 'mmdg-live[engine]'",
                                  name="matplotlib") from error

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    uncertainty = explanation.uncertainty_maps()[block, :, row].numpy()
    attention = {name: maps[block, row].numpy() for name, maps in explanation.attention_maps().items()}
    sources = {own: [name for name in attention if name.startswith(f"{own}_from_")] for own in MODALITIES}
    columns = 2 + max(len(names) for names in sources.values())
    figure, axes = plt.subplots(len(MODALITIES), columns, figsize=(3.0 * columns + 1.6, 9.6), layout="constrained",
                                squeeze=False)
    uncertainty_scale = mpl.colors.Normalize(*_range([uncertainty]))
    attention_scale = mpl.colors.Normalize(*_range(list(attention.values())))
    for index, own in enumerate(MODALITIES):
        image = _image(inputs.planes[row, index], own, specification)
        present = bool(inputs.present[row, index])
        _draw(axes[index, 0], image, f"{own}" if present else f"{own}: absent")
        _draw(axes[index, 1], image, f"uncertainty of {own}", uncertainty[index], "inferno", uncertainty_scale)
        for column, name in enumerate(sources[own], start=2):
            _draw(axes[index, column], image, name.replace("_", " "), attention[name], "viridis", attention_scale)
        for axis in axes[index, 2 + len(sources[own]):]:
            axis.set_axis_off()
    figure.colorbar(mpl.cm.ScalarMappable(uncertainty_scale, "inferno"), ax=axes[:, 1], location="bottom", shrink=0.9,
                    label="token uncertainty, 1 - U")
    figure.colorbar(mpl.cm.ScalarMappable(attention_scale, "viridis"), ax=axes[:, 2:], location="bottom", shrink=0.9,
                    label="attention received by own patch (1 = even share)")
    figure.suptitle(f"{title}\nblock {block + 1} of {depth}; attention: mean over heads and source tokens", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axis: Any, image: NDArray[np.float32], caption: str, overlay: NDArray[np.float32] | None = None,
          colours: str = "", scale: Any = None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if overlay is not None and np.isnan(overlay).any():
        axis.set_facecolor("0.85")
        axis.set_aspect("equal")
        axis.text(0.5, 0.5, "nothing exchanged:\nabsent", ha="center", va="center", transform=axis.transAxes)
    else:
        # Under a map the image is grey: its own colours would read as values.
        axis.imshow(image if overlay is None else image.mean(axis=2), vmin=0.0, vmax=1.0, cmap="gray")
        if overlay is not None:
            caption = f"{caption}\n{overlay.min():.4f} .. {overlay.max():.4f}"
            axis.imshow(overlay, cmap=colours, norm=scale, alpha=OVERLAY, interpolation="nearest",
                        extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5))
    axis.set_title(caption, fontsize=9)


def _image(plane: NDArray[np.float32], modality: Modality, specification: InputSpecification) -> NDArray[np.float32]:
    """Network input `[3, S, S]` back to levels as 0..1 `[S, S, 3]`."""
    name = {Modality.RGB: "colour", Modality.DEPTH: "depth", Modality.INFRARED: "infrared"}[modality]
    levels = plane * getattr(specification, f"{name}_scale") + getattr(specification, f"{name}_mean")
    return np.asarray(np.clip(levels / 255.0, 0.0, 1.0).transpose(1, 2, 0), dtype=np.float32)


def _range(maps: list[NDArray[np.float32]]) -> tuple[float, float]:
    values = np.concatenate([one[np.isfinite(one)].ravel() for one in maps])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-6 else (low - 1e-6, high + 1e-6)
