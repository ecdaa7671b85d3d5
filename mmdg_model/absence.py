"""Taking modalities away from prepared inputs: modality dropout in training, missing-sensor protocols in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmdg_model.inputs import AbsenceEncoding, InputError, InputSpecification, PreparedInputs, black_levels


def without(inputs: PreparedInputs, absent: NDArray[np.bool_], specification: InputSpecification, *,
            encodings: AbsenceEncoding | Sequence[AbsenceEncoding] | None = None) -> PreparedInputs:
    """Copies of `inputs` in which modalities are missing, as if their sensor had not been there.

    Args:
        inputs: as `inputs.prepare` made them under `specification`.
        absent: `bool [b, 3]`, True where a modality is taken away. What was absent before stays so.
        specification: of the network.
        encodings: how the network is told: one for all rows or one a row, default `specification.absence`. A batch
            may mix them, and rows may lack different modalities.

    Returns:
        The inputs for the network. A row's `present` is False where a modality is absent; but where a row's encoding is
        an image (black or zeros) and the network works by flags, it is True, or the image would be muted.
        So judge what was measured by `absent`, not by this `present`, when mixing encodings.

    Raises:
        InputError: wrong shapes, another number of encodings than rows, or a row with nothing left.
    """
    rows = len(inputs.present)
    if absent.shape != inputs.present.shape or absent.dtype != np.bool_:
        raise InputError(f"absent is {absent.dtype} {absent.shape}, expected bool {inputs.present.shape}")
    chosen = specification.absence if encodings is None else encodings
    each = [chosen] * rows if isinstance(chosen, AbsenceEncoding) else list(chosen)
    if len(each) != rows:
        raise InputError(f"{len(each)} encodings of absence for {rows} rows, expected one a row")
    measured = inputs.present & ~absent
    if not measured.any(axis=1).all():
        row = int(np.argmin(measured.any(axis=1)))
        raise InputError(f"row {row} has no modality left; a score needs at least one")
    planes, present = inputs.planes.copy(), measured.copy()
    black = black_levels(specification)
    for row, encoding in enumerate(each):
        gone = ~measured[row]
        planes[row, gone] = 0.0
        if encoding is AbsenceEncoding.BLACK_IMAGE:
            planes[row, gone] = black[gone, None, None, None]
        if encoding is not AbsenceEncoding.FLAG and specification.absence is AbsenceEncoding.FLAG:
            present[row] = True
    return PreparedInputs(planes, present)
