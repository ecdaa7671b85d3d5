"""Published figures of the benchmark, as data: Tables 1 to 5 of arXiv 2402.19298 v2, in per cent, HTER then AUC.

Which of our rows a published one may stand beside is said here, too. How the paper chose epochs and thresholds it does
not say; that its HTER is the target's own equal error at the best epoch is inferred from later code of the same line of
work (docs/evaluation.md), so our oracle column is the one beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mmdg_model.training.protocols import Scenario

SOURCE = "arXiv 2402.19298 v2"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Per cent."""

    hter: float
    auc: float

    def __str__(self) -> str:
        return f"{self.hter:.2f} / {self.auc:.2f}"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of one table.

    Attributes:
        title: as printed. group: as printed (DG, MM, FM, Baseline, Ours), or the backbone in Tables 4 and 5.
        cells: by column of our report (protocol or scenario); `average` where the table prints one.
        ours: names of methods that are this row; more than one where the paper does not say which. A name that
            `methods.registry.METHODS` lacks is not implemented.
        note: what a reader must know who compares.
    """

    title: str
    group: str
    cells: Mapping[str, Figures]
    ours: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table: columns in order, rows in order."""

    number: int
    caption: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def row_of(self, method: str) -> PublishedRow | None:
        """The row that a method of ours is, if any."""
        return next((row for row in self.rows if method in row.ours), None)


AVERAGE = "average"
_P1 = ("CPS_W", "CPW_S", "CSW_P", "PSW_C")
_P2 = (str(Scenario.MISSING_DEPTH), str(Scenario.MISSING_INFRARED), str(Scenario.MISSING_DEPTH_AND_INFRARED))
_P3 = ("CW_PS", "PS_CW")
_NO_FUSION = "how the plain ViT joins modalities is not stated"
_PLAIN = ("vit_late", "vit_early", "vit_cross")

#: title, group, then HTER and AUC by column, the average last where the table prints one.
_TABLE_1 = (
    ("SSDG", "DG", 26.09, 82.03, 28.50, 75.91, 41.82, 60.56, 40.48, 62.31, 34.22, 70.20),
    ("SSAN", "DG", 17.73, 91.69, 27.94, 79.04, 34.49, 68.85, 36.43, 69.29, 29.15, 77.22),
    ("IADG", "DG", 27.02, 86.50, 23.04, 83.11, 32.06, 73.83, 39.24, 63.68, 30.34, 76.78),
    ("ViTAF", "DG", 20.58, 85.82, 29.16, 77.80, 30.75, 73.03, 39.75, 63.44, 30.06, 75.02),
    ("MM-CDCN", "MM", 38.92, 65.39, 42.93, 59.79, 41.38, 61.51, 48.14, 53.71, 42.84, 60.10),
    ("CMFL", "MM", 18.22, 88.82, 31.20, 75.66, 26.68, 80.85, 36.93, 66.82, 28.26, 78.04),
    ("ViT+AMA", "FM", 17.56, 88.74, 27.50, 80.00, 21.18, 85.51, 47.48, 55.56, 28.43, 77.45),
    ("VP-FAS", "FM", 16.26, 91.22, 24.42, 81.07, 21.76, 85.46, 39.35, 66.55, 25.45, 81.08),
    ("ViT", "Baseline", 20.88, 84.77, 44.05, 57.94, 33.58, 71.80, 42.15, 56.45, 35.16, 67.74),
    ("MMDG", "Ours", 12.79, 93.83, 15.32, 92.86, 18.95, 88.64, 29.93, 76.52, 19.25, 87.96),
)
_TABLE_2 = (
    ("SSDG", "DG", 38.92, 65.45, 37.64, 66.57, 39.18, 65.22, 38.58, 65.75),
    ("SSAN", "DG", 36.77, 69.21, 41.20, 61.92, 33.52, 73.38, 37.16, 68.17),
    ("IADG", "DG", 40.72, 58.72, 42.17, 61.83, 37.50, 66.90, 40.13, 62.49),
    ("ViTAF", "DG", 34.99, 73.22, 35.88, 69.40, 35.89, 69.61, 35.59, 70.64),
    ("MM-CDCN", "MM", 44.90, 55.35, 43.60, 58.38, 44.54, 55.08, 44.35, 56.27),
    ("CMFL", "MM", 31.37, 74.62, 30.55, 75.42, 31.89, 74.29, 31.27, 74.78),
    ("ViT+AMA", "FM", 29.25, 77.70, 32.30, 74.06, 31.48, 75.82, 31.01, 75.86),
    ("VP-FAS", "FM", 29.13, 78.27, 29.63, 77.51, 30.47, 76.31, 29.74, 77.36),
    ("ViT", "Baseline", 40.04, 64.69, 36.77, 68.19, 36.20, 69.02, 37.67, 67.30),
    ("MMDG", "Ours", 24.89, 82.39, 23.39, 83.82, 25.26, 81.86, 24.51, 82.69),
)
_TABLE_3 = (
    ("SSDG", "DG", 25.34, 80.17, 46.98, 54.29), ("SSAN", "DG", 26.55, 80.06, 39.10, 67.19),
    ("IADG", "DG", 22.82, 83.85, 39.70, 63.46), ("ViTAF", "DG", 29.64, 77.36, 39.93, 61.31),
    ("MM-CDCN", "MM", 29.28, 76.88, 47.00, 51.94), ("CMFL", "MM", 31.86, 72.75, 39.43, 63.17),
    ("ViT+AMA", "FM", 29.25, 76.89, 38.06, 67.64), ("VP-FAS", "FM", 25.90, 81.79, 44.37, 60.83),
    ("ViT", "Baseline", 42.66, 57.80, 42.75, 60.41), ("MMDG", "Ours", 20.12, 88.24, 36.60, 70.35),
)
_TABLE_4 = (
    ("-", "ViT", 31.14, 74.81), ("ReGrad", "ViT", 30.59, 75.94),
    ("SSDG", "ViT + U-Adapter", 26.13, 80.31), ("SSAN", "ViT + U-Adapter", 26.94, 79.52),
    ("IADG", "ViT + U-Adapter", 24.23, 82.54), ("PMR", "ViT + U-Adapter", 24.54, 83.14),
    ("OGM-GE", "ViT + U-Adapter", 29.32, 76.54), ("-", "ViT + U-Adapter", 27.38, 78.88),
    ("ReGrad (conflicted-only)", "ViT + U-Adapter", 21.91, 85.65),
    ("ReGrad (unconflicted-only)", "ViT + U-Adapter", 21.23, 85.51), ("ReGrad", "ViT + U-Adapter", 19.48, 87.48),
)
_TABLE_5 = (
    ("neither", "U in Eq. 4 (adapters), U in Eq. 5 (ReGrad)", 28.40, 78.65),
    ("Eq. 5 only", "U in Eq. 4 (adapters), U in Eq. 5 (ReGrad)", 26.13, 81.60),
    ("Eq. 4 only", "U in Eq. 4 (adapters), U in Eq. 5 (ReGrad)", 22.75, 84.84),
    ("both", "U in Eq. 4 (adapters), U in Eq. 5 (ReGrad)", 19.48, 87.48),
)

#: (table, title, group) -> rows of ours, and what to know of them.
_OURS: Mapping[tuple[int, str, str], tuple[tuple[str, ...], str]] = {
    **{(number, title, group): ((name,), "") for number in (1, 2, 3) for title, group, name in (
        ("SSDG", "DG", "ssdg"), ("SSAN", "DG", "ssan"), ("IADG", "DG", "iadg"), ("ViTAF", "DG", "vitaf"),
        ("MM-CDCN", "MM", "mm_cdcn"), ("CMFL", "MM", "cmfl"), ("ViT+AMA", "FM", "vit_ama"),
        ("VP-FAS", "FM", "vp_fas"))},
    **{(4, title, "ViT + U-Adapter"): ((name,), "") for title, name in (
        ("SSDG", "ssdg_u_adapter"), ("SSAN", "ssan_u_adapter"), ("IADG", "iadg_u_adapter"), ("PMR", "pmr_u_adapter"),
        ("OGM-GE", "ogm_ge_u_adapter"))},
    (1, "ViT", "Baseline"): (_PLAIN, f"{_NO_FUSION}; Table 4 prints 31.14 / 74.81 for a plain ViT"),
    (2, "ViT", "Baseline"): (_PLAIN, _NO_FUSION),
    (3, "ViT", "Baseline"): (_PLAIN, _NO_FUSION),
    (1, "MMDG", "Ours"): (("mmdg",), "Tables 4 and 5 print 19.48 / 87.48 for the same network"),
    (2, "MMDG", "Ours"): (("mmdg",), ""), (3, "MMDG", "Ours"): (("mmdg",), ""),
    (4, "-", "ViT"): (_PLAIN, f"{_NO_FUSION}; Table 1 prints 35.16 / 67.74 for a plain ViT"),
    (4, "ReGrad", "ViT"): (("vit_late_regrad",), "how ReGrad acts on a shared ViT is not stated"),
    (4, "-", "ViT + U-Adapter"): (("u_adapter",), ""),
    (4, "ReGrad (conflicted-only)", "ViT + U-Adapter"): (("mmdg_conflicted_only",), ""),
    (4, "ReGrad (unconflicted-only)", "ViT + U-Adapter"): (("mmdg_unconflicted_only",), ""),
    (4, "ReGrad", "ViT + U-Adapter"): (("mmdg",), "Table 1 prints 19.25 / 87.96 for the same network"),
    (5, "neither", _TABLE_5[0][1]): (("mmdg_without_certainty",), ""),
    (5, "Eq. 5 only", _TABLE_5[0][1]): (("mmdg_certainty_in_regrad_only",), ""),
    (5, "Eq. 4 only", _TABLE_5[0][1]): (("mmdg_certainty_in_adapter_only",), ""),
    (5, "both", _TABLE_5[0][1]): (("mmdg",), ""),
}


def _table(number: int, caption: str, columns: tuple[str, ...],
           rows: tuple[tuple[str | float, ...], ...]) -> PublishedTable:
    made = []
    for title, group, *values in rows:
        figures = [float(value) for value in values]
        ours, note = _OURS.get((number, str(title), str(group)), ((), ""))
        made.append(PublishedRow(title=str(title), group=str(group), ours=ours, note=note, cells=MappingProxyType(
            {column: Figures(hter=hter, auc=auc)
             for column, hter, auc in zip(columns, figures[::2], figures[1::2], strict=True)})))
    return PublishedTable(number=number, caption=caption, columns=columns, rows=tuple(made))


TABLES: Mapping[int, PublishedTable] = MappingProxyType({table.number: table for table in (
    _table(1, "Protocol 1: three data sets train, the fourth is the target", (*_P1, AVERAGE), _TABLE_1),
    _table(2, "Protocol 2: Protocol 1's networks with modalities withheld, mean over its four targets",
           (*_P2, AVERAGE), _TABLE_2),
    _table(3, "Protocol 3: two data sets train, the other two are the target", _P3, _TABLE_3),
    _table(4, "Ablation of ReGrad, mean over Protocol 1", (AVERAGE,), _TABLE_4),
    _table(5, "Ablation of the certainty U, mean over Protocol 1", (AVERAGE,), _TABLE_5),
)})

#: Rows of ours that no table of the paper has, and why they are run.
NOT_PUBLISHED: Mapping[str, str] = MappingProxyType({
    "u_adapter_ssp": "cross entropy and SSP loss without ReGrad: the step between two rows of Table 4",
})
