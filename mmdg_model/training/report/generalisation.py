"""The report on generalisation: difficulty, data sets left out, families left out, paired differences, modalities."""

from __future__ import annotations

from collections.abc import Iterable

from mmdg_model.training.report.difficulty import difficulty_lines, difficulty_table
from mmdg_model.training.report.left_out_tables import (
    domain_table,
    family_table,
    left_out_species_table,
    species_rates_table,
)
from mmdg_model.training.report.pages import Report, Section
from mmdg_model.training.report.paired_differences import paired_table
from mmdg_model.training.report.run_kinds import Held, protocols_of
from mmdg_model.training.report.run_results import Collection
from mmdg_model.training.report.single_modality import modality_lines, modality_studies, modality_table
from mmdg_model.training.report.tables import SIMULATED, TextTable, configuration_table, significance_table
from mmdg_model.training.significance import PIPELINE_CHECK


def build_generalisation_report(collection: Collection, *, resamples: int = 2000) -> Report:
    """All sections that the runs have something for; the others say that nothing was run.

    Raises:
        ScoreTableError, FileNotFoundError: a run's scores are damaged or gone.
    """
    paired, refused = paired_table(collection, resamples=resamples)
    studies = modality_studies(collection, resamples=resamples)
    species = _present(species_rates_table(collection, protocol) for protocol in protocols_of(collection, *Held))
    sections = (
        Section(title="Difficulty", tables=(difficulty_table(collection, difficulty_lines(collection)),)),
        _section("A data set left out", _present([domain_table(collection)])),
        _section("A family of attacks left out",
                 _present([family_table(collection), left_out_species_table(collection)])),
        Section(title="MMDG against its parts", tables=_present([paired]), lines=tuple(refused),
                text=() if paired else ("No pair was run.",)),
        Section(title="One modality alone", lines=tuple(line for study in studies for line in modality_lines(study)),
                tables=tuple(modality_table(study, domains=of_domains) for study in studies
                             for of_domains in (False, True)),
                text=() if studies else ("No method was run with each of the three modalities alone.",)),
        _section("Errors by attack species", species),
        Section(title="Above chance?", tables=(significance_table(collection),)),
        Section(title="Rows", tables=(configuration_table(collection),)),
        Section(title="What did not run", lines=tuple(f"{each.name}: {each.why}" for each in collection.unfinished),
                text=() if collection.unfinished else ("Every run that was begun is evaluated.",)))
    return Report(title="Generalisation" + (" (simulated data)" if collection.simulated else ""),
                  warnings=tuple(_warnings(collection)), sections=sections)


def _warnings(collection: Collection) -> list[str]:
    tests = [run.evaluation.significance for row in collection.rows for run in row.runs.values()]
    below = sum(not test.above_chance for test in tests)
    warnings = []
    if collection.simulated:
        warnings.append(f"{SIMULATED}. These runs were trained and tested on simulated faces and attacks; nothing here "
                        "says anything of real faces.")
    if below:
        warnings.append(f"{below} of {len(tests)} runs are not above chance (p < 0.01): {PIPELINE_CHECK}.")
    return warnings


def _present(tables: Iterable[TextTable | None]) -> tuple[TextTable, ...]:
    return tuple(table for table in tables if table is not None)


def _section(title: str, tables: tuple[TextTable, ...]) -> Section:
    return Section(title=title, tables=tables, text=() if tables else ("Nothing of it was run.",))
