"""The known layouts, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmdg_model.weights.hugging_face_vit import HUGGING_FACE
from mmdg_model.weights.layout import Layout, WeightImportError
from mmdg_model.weights.openai_clip import OPENAI_CLIP, OPENAI_CLIP_VISUAL
from mmdg_model.weights.released_mmdg import RELEASED_MMDG
from mmdg_model.weights.released_mmdg_plus_plus import RELEASED_MMDG_PLUS_PLUS
from mmdg_model.weights.timm_vit import TIMM
from mmdg_model.weights.torchvision_vit import TORCHVISION

#: Asks for the one layout whose names fit exactly.
AUTO = "auto"

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (TORCHVISION, TIMM, HUGGING_FACE, OPENAI_CLIP, OPENAI_CLIP_VISUAL, RELEASED_MMDG,
                   RELEASED_MMDG_PLUS_PLUS)
}


def match_scores(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """`Layout.match_score` of every known layout, best first."""
    scores = {name: layout.match_score(weights) for name, layout in LAYOUTS.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def choose_layout(name: str, weights: Mapping[str, Tensor], place: str) -> Layout:
    """The layout called `name`, or for `auto` the only one whose names are exactly those of the file.

    Raises:
        WeightImportError: an unknown name; or for `auto`, none or several fit: the scores are listed, best first.
    """
    if name != AUTO:
        if name not in LAYOUTS:
            raise WeightImportError(f"layout {name!r} is unknown; known layouts: {AUTO}, {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    scores = match_scores(weights)
    fitting = [layout for layout, score in scores.items() if score == 1.0]
    if len(fitting) != 1:
        listed = ", ".join(f"{layout} {score:.0%}" for layout, score in scores.items())
        # Rounded up, 99.6 % would read as a fit.
        listed = listed.replace("100%", "nearly 100%") if not fitting else listed
        raise WeightImportError(
            f"weights {place}: {'several layouts fit' if fitting else 'no layout fits exactly'} (names in common: "
            f"{listed}); state the one it is with --layout, and what does not fit it will be listed")
    return LAYOUTS[fitting[0]]
