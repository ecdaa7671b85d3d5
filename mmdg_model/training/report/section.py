"""`Section`: a part of a report, and a page of its own where it has a name for one."""

from __future__ import annotations

from dataclasses import dataclass

from mmdg_model.training.report.figures import DrawnFigure
from mmdg_model.training.report.tables import TextTable


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what is under it, in this order. `page`: stem of its own files; empty for none."""

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[TextTable, ...] = ()
    figures: tuple[DrawnFigure, ...] = ()
    lines: tuple[str, ...] = ()
    page: str = ""
