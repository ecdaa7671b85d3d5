"""Sizes and outlines of held instruments: not every print is an A4 page and not every picture ends beside the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capture.simulated.sheets import PAGE_M
from capture.simulated.species import Display, Hold

#: A4 and the next larger size; the front of the largest tablets.
LARGE_PAGE_M = (0.297, 0.420)
LARGE_TABLET_M = (0.208, 0.327)
#: Shares of pages that are large and of large ones that are cut out along head and shoulders; of held displays that are
#: large and show the face smaller, with neck, shoulders and the wall behind it.
LARGE_PAGES, BUSTS, WIDE_DISPLAYS = 0.6, 0.7, 0.4
_WIDE_SCALES = (0.72, 0.92)


@dataclass(frozen=True, kw_only=True)
class Format:
    """Of one instrument.

    Attributes:
        page_m: size of a printed page. bust: of a page only head, neck and shoulders are left, cut with scissors.
        wide: a held display is a large one, and frames the face as `display_scale` of what suits its size.
    """

    page_m: tuple[float, float] = PAGE_M
    bust: bool = False
    wide: bool = False
    display_scale: float = 1.0

    def front_m(self, display: Display) -> tuple[float, float]:
        """Width and height of a display's front."""
        tablet = display.hold is Hold.BEFORE_FACE
        return LARGE_TABLET_M if self.wide and tablet else display.size_m


#: What every instrument of a scene without surroundings has.
PLAIN = Format()


def draw_format(instrument_seed: int) -> Format:
    """Of the instrument with that seed, whatever its species."""
    rng = np.random.default_rng([instrument_seed, 26])
    large, bust, wide = (rng.uniform() < share for share in (LARGE_PAGES, BUSTS, WIDE_DISPLAYS))
    return Format(page_m=LARGE_PAGE_M if large else PAGE_M, bust=bool(large and bust), wide=bool(wide),
                  display_scale=float(rng.uniform(*_WIDE_SCALES)) if wide else 1.0)
