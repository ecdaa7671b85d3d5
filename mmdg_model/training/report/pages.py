"""The report's two forms: Markdown with PNG files beside it, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mmdg_model.training.method_costs import MethodCost
from mmdg_model.training.published_results import TABLES
from mmdg_model.training.report.certainty_pictures import certainty_pictures
from mmdg_model.training.report.cost_table import cost_table
from mmdg_model.training.report.figures import draw_all
from mmdg_model.training.report.later_table import later_lines, later_table
from mmdg_model.training.report.order_table import order_table, shortened
from mmdg_model.training.report.paper_figures import backbone_swaps, balance, one_and_all
from mmdg_model.training.report.run_results import Collection
from mmdg_model.training.report.section import Section
from mmdg_model.training.report.tables import (
    SIMULATED,
    TextCell,
    TextTable,
    chance_table,
    configuration_table,
    missing_lines,
    published_table,
    significance_table,
    species_table,
)
from mmdg_model.training.significance import PIPELINE_CHECK
from mmdg_model.whole_file import write_whole

__all__ = ["Report", "Section", "build_report", "to_html", "to_markdown", "write_report"]

_THREE_WAYS = ("Three ways to choose epoch and threshold stand side by side: by the target's labels at the best epoch "
               "(how cross-dataset tables of this field are made where their code is public), by the target's labels "
               "at the last epoch, and by source validation alone (honest: what a kiosk would have got).")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything, laid out."""

    title: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


def build_report(collection: Collection, *, resamples: int = 2000, costs: Sequence[MethodCost] = (),
                 pictures: bool = True) -> Report:
    """All sections; draws all figures.

    Args:
        resamples: of the order claims' bootstrap. costs: of methods, for the cost table.
        pictures: of faces (Fig. 7), which opens a network and its data.

    Raises:
        ScoreTableError: a run's scores are damaged. ModuleNotFoundError: without matplotlib.
    """
    tests = [run.evaluation.significance for row in collection.rows for run in row.runs.values()]
    below = sum(not test.above_chance for test in tests)
    warnings = []
    if collection.simulated:
        warnings.append(f"{SIMULATED}. These runs were trained and tested on simulated faces and attacks. They show "
                        "that the pipeline runs and compare our rows with each other; they are no reproduction of the "
                        "paper and say nothing of real faces.")
    if any(not row.config.backbone for row in collection.rows):
        warnings.append("Some runs start from random weights and train them all, where the paper starts from an "
                        "ImageNet ViT.")
    if below:
        warnings.append(f"{below} of {len(tests)} runs are not above chance (p < 0.01): {PIPELINE_CHECK}.")
    orders, refused = order_table(collection, resamples=resamples)
    figures = draw_all(collection)
    kinds = {kind: tuple(figure for figure in figures if figure.name.startswith(kind))
             for kind in ("roc-", "training-", "ssp-")}
    of_paper = {"Fig. 1(c)": one_and_all(collection), "Fig. 5": backbone_swaps(collection),
                "Fig. 6": balance(collection), "Fig. 7": certainty_pictures(collection, draw=pictures)}
    sections = [
        Section(title="Rows", tables=(configuration_table(collection),)),
        *(Section(title=f"Table {number}", page=f"table-{number}", text=(_THREE_WAYS,),
                  tables=tuple(filter(None, (table, later_table(number, simulated=collection.simulated)))))
          for number in TABLES if (table := published_table(number, collection)) is not None),
        *filter(None, of_paper.values()),
        *((Section(title="What each method costs", page="costs", tables=(cost_table(costs),)),) if costs else ()),
        Section(title="Above chance?", tables=(significance_table(collection), chance_table(collection))),
        Section(title="Errors by attack species", tables=tuple(
            table for protocol in collection.protocols
            if (table := species_table(collection, protocol)) is not None)),
        Section(title="Who beats whom", tables=(orders,) if orders else (),
                text=() if orders else ("No pair of rows may be compared yet.",), lines=tuple(shortened(refused))),
        Section(title="ROC and DET", figures=kinds["roc-"]),
        Section(title="Training", figures=kinds["training-"]),
        Section(title="SSP losses", figures=kinds["ssp-"]),
        Section(title="What did not run", page="not-run", lines=(
            *missing_lines(collection), *(f"{name}: no run of it" for name, found in of_paper.items() if found is None),
            *later_lines(collection))),
    ]
    return Report(title="Benchmark report" + (" (simulated data)" if collection.simulated else ""),
                  warnings=tuple(warnings),
                  sections=tuple(one for one in sections if one.text or one.tables or one.figures or one.lines))


def write_report(report: Report, out: Path) -> tuple[Path, Path]:
    """Writes `report.md` with `figures/*.png`, and `report.html`; returns the two paths. A section with a page of its
    own is also `pages/NAME.md` and `pages/NAME.html`.

    Raises:
        OSError: the folder cannot be written. ModuleNotFoundError: without jinja2.
    """
    html = to_html(report)
    for section in report.sections:
        for figure in section.figures:
            write_whole(out / "figures" / f"{figure.name}.png", figure.png)
        if section.page:
            alone = Report(title=report.title, warnings=report.warnings, sections=(section,))
            write_whole(out / "pages" / f"{section.page}.md", to_markdown(alone, figures="../figures").encode())
            write_whole(out / "pages" / f"{section.page}.html", to_html(alone).encode())
    write_whole(out / "report.md", to_markdown(report).encode())
    write_whole(out / "report.html", html.encode())
    return out / "report.md", out / "report.html"


def to_markdown(report: Report, *, figures: str = "figures") -> str:
    """Figures as links into the folder `figures`."""
    parts = [f"# {report.title}", *(f"> **{warning}**" for warning in report.warnings)]
    for section in report.sections:
        parts += [f"## {section.title}", *section.text]
        parts += ["\n".join(f"- {line}" for line in section.lines)] if section.lines and not section.tables else []
        for table in section.tables:
            parts += [_markdown_table(table), f"*{table.caption}*"]
        parts += ["\n".join(f"- {line}" for line in section.lines)] if section.lines and section.tables else []
        for figure in section.figures:
            parts += [f"![{figure.name}]({figures}/{figure.name}.png)", f"*{figure.caption}*"]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: TextTable) -> str:
    rule = ["---" if index < table.words else "---:" for index in range(len(table.header))]
    return "\n".join([_markdown_row(table.header), _markdown_row(rule),
                      *(_markdown_row([_markdown_cell(cell) for cell in row]) for row in table.rows)])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: TextCell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.strong and text else text


def to_html(report: Report) -> str:
    """One file: style and figures inside, no script, nothing fetched."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the HTML report needs jinja2: pip install 'mmdg-live[train]'",
                                  name="jinja2") from error
    source = (resources.files("mmdg_model.training.report") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    return environment.from_string(source).render(report=report, shade=_shade)


def _shade(share: float) -> str:
    """Background of an error rate: white at 0, red at 1; light enough for black text."""
    least = 255 - round(170 * min(max(share, 0.0), 1.0) ** 0.7)
    return f"rgb(255,{least},{least})"
