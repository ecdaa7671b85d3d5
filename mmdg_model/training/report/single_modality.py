"""What each modality can do by itself: species × modality, and where a modality misleads.

A benchmark on which one modality solves everything asks for no fusion; one on which a modality never helps asks for
fewer sensors. Asked of the networks that were trained on one modality alone:

- at the threshold that refuses 5 % of bona fide, does each have a species of which it accepts at least 30 %?
- is each the only informative one for some species (APCER at most 30 % where the other two accept more)?
- is each misleading in some data set or for some species (attacks score above bona fide more often than below: the
  whole interval of AUC under 50 %)?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import Interval, Proportion, Unit, auc, roc
from mmdg_model.scorer import Modality
from mmdg_model.training.report.run_kinds import HonestScores, interval_text, only_modality, rate_text, scores_of
from mmdg_model.training.report.run_results import Collection, ReportRow
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs
from mmdg_model.training.scores import Presentations
from mmdg_model.training.species_families import family_of
from mmdg_model.training.subject_bootstrap import bootstrap_by_subject

#: Of bona fide refused; set on the very test it is used on, to compare modalities at one cost to users.
BPCER_LIMIT = 0.05
#: A modality informs on a species whose APCER is not above this.
APCER_BOUND = 0.30
#: Attack videos below which nothing is said of a species or data set.
FEWEST_VIDEOS = 5


@dataclass(frozen=True, kw_only=True)
class ModalityOnGroup:
    """One modality on one species, or on the attacks of one data set, against bona fide.

    Attributes:
        apcer: of its videos at `BPCER_LIMIT`. auc: 0..1. interval: of it, by subject; None with too few subjects.
    """

    apcer: Proportion
    auc: float
    interval: Interval | None

    @property
    def is_enough(self) -> bool:
        """Whether there are enough videos to say anything."""
        return self.apcer.trials >= FEWEST_VIDEOS

    @property
    def informs(self) -> bool:
        """At most `APCER_BOUND` of it is accepted."""
        return self.is_enough and self.apcer.rate <= APCER_BOUND

    @property
    def misleads(self) -> bool:
        """The whole interval of AUC is under one half."""
        return self.is_enough and self.interval is not None and self.interval.high < 0.5


ByModality = Mapping[Modality, ModalityOnGroup]


@dataclass(frozen=True, kw_only=True)
class ModalityStudy:
    """Networks of one modality each, of one method, on one protocol.

    Attributes:
        protocol: of their training and test. rows: by modality.
        species, domains: what each does on each species and on each data set's attacks and bona fide.
    """

    protocol: str
    rows: Mapping[Modality, ReportRow]
    species: Mapping[str, ByModality]
    domains: Mapping[str, ByModality]

    def only_informative(self, modality: Modality) -> list[str]:
        """Species on which it informs and no other does."""
        return [name for name, of_modality in self.species.items()
                if [each for each, found in of_modality.items() if found.informs] == [modality]]

    def misleading(self, modality: Modality) -> list[str]:
        """Data sets and species where it misleads."""
        return [name for group in (self.domains, self.species) for name, of_modality in group.items()
                if of_modality[modality].misleads]

    def worst_species(self, modality: Modality) -> tuple[str, Proportion] | None:
        """The species of which it accepts most; None where all have too few videos."""
        rates = {name: found[modality].apcer for name, found in self.species.items() if found[modality].is_enough}
        return max(rates.items(), key=lambda item: item[1].rate) if rates else None


def threshold_at_bpcer(shown: Presentations, limit: float = BPCER_LIMIT) -> float:
    """The largest threshold that refuses at most `limit` of the bona fide presentations (accept is >=)."""
    live = np.sort(shown.score[shown.live])
    return float(live[int(np.floor(limit * len(live) + 1e-9))])


def modality_studies(collection: Collection, *, resamples: int = 2000) -> list[ModalityStudy]:
    """One for each protocol and method that was run with each of the three modalities alone; of the lowest seeds."""
    by_place: dict[tuple[str, str], dict[Modality, ReportRow]] = {}
    for row in collection.rows:
        modality = only_modality(row)
        if modality is not None:
            for protocol in dict.fromkeys(name for name, _ in row.runs):
                by_place.setdefault((protocol, row.method), {}).setdefault(modality, row)
    return [_study(protocol, rows, resamples) for (protocol, _), rows in by_place.items() if len(rows) == len(Modality)]


def _study(protocol: str, rows: Mapping[Modality, ReportRow], resamples: int) -> ModalityStudy:
    scores = {modality: scores_of(rows[modality].runs[protocol, rows[modality].seeds(protocol)[0]])
              for modality in Modality}
    first = next(iter(scores.values())).shown
    names = sorted(np.unique(first.species[~first.live]).tolist(), key=lambda name: (str(family_of(name)), name))
    domains = np.unique(first.domain).tolist()

    def over(pick: str, name: str) -> ByModality:
        return {modality: _on_group(each, pick, name, resamples) for modality, each in scores.items()}

    return ModalityStudy(protocol=protocol, rows=rows, species={name: over("species", name) for name in names},
                         domains={name: over("domain", name) for name in domains
                                  if _both_labels(first, first.domain == name)})


def _both_labels(shown: Presentations, which: NDArray[np.bool_]) -> bool:
    return bool((shown.live & which).any() and (~shown.live & which).any())


def _on_group(scores: HonestScores, pick: str, name: str, resamples: int) -> ModalityOnGroup:
    """A species is held against all bona fide, a data set's attacks against its own."""
    shown, threshold = scores.shown, threshold_at_bpcer(scores.shown)
    attacks = ~shown.live & (getattr(shown, pick) == name)
    rows = scores.table.live | (scores.table.species == name) if pick == "species" else scores.table.domain == name
    group = scores.table.rows(rows).presentations(Unit.VIDEO)
    return ModalityOnGroup(
        apcer=Proportion(count=int((shown.score[attacks] >= threshold).sum()), trials=int(attacks.sum()),
                         unit=Unit.VIDEO),
        auc=auc(roc(group.score, group.live)),
        interval=bootstrap_by_subject(group, threshold, resamples=resamples).auc)


def modality_table(study: ModalityStudy, *, domains: bool) -> TextTable:
    """Species × modality, or data set × modality."""
    groups = study.domains if domains else study.species
    lines = []
    for name, of_modality in groups.items():
        informed = [modality for modality, found in of_modality.items() if found.informs]
        misled = [str(modality) for modality, found in of_modality.items() if found.misleads]
        enough = all(found.is_enough for found in of_modality.values())
        informing = (f"only {informed[0]} informs" if len(informed) == 1 else "" if informed else "none informs")
        said = [informing if enough else f"fewer than {FEWEST_VIDEOS} videos",
                f"{' and '.join(misled)} mislead{'s' if len(misled) == 1 else ''}" if misled else ""]
        lines.append((TextCell(name), TextCell("" if domains else str(family_of(name) or "")),
                      *(TextCell(f"{rate_text(found.apcer)}, AUC {100 * found.auc:.0f} {interval_text(found.interval)}"
                                 .rstrip(), shade=found.apcer.rate) for found in of_modality.values()),
                      TextCell("; ".join(filter(None, said)), strong=bool(misled))))
    rows = list(study.rows.values())
    return TextTable(
        caption=f"Networks given one modality alone ({rows[0].method}, {column_title(study.protocol)}): APCER in % "
                f"{'of each data set' if domains else 'by species'} at the threshold that refuses "
                f"{100 * BPCER_LIMIT:.0f} % of all tested bona fide, exact 95 % interval, videos; and AUC in % against "
                f"{'its own' if domains else 'all'} bona fide with 95 % interval by subjects drawn anew. Informs: "
                f"APCER of at most {100 * APCER_BOUND:.0f} %. Misleads: interval of AUC under 50 %. "
                f"{describe_runs(rows)}",
        header=("data set" if domains else "species", "" if domains else "family", *map(str, Modality), "says"),
        rows=tuple(lines), words=2)


def _met(names: list[str]) -> str:
    return f"met ({', '.join(names)})" if names else "missed"


def modality_lines(study: ModalityStudy) -> list[str]:
    """The three questions for each modality, answered met or missed."""
    lines = []
    for modality in Modality:
        worst = study.worst_species(modality)
        found = "" if worst is None else f" ({worst[0]}: {rate_text(worst[1])})"
        is_met = worst is not None and worst[1].rate >= APCER_BOUND
        alone, wrong = study.only_informative(modality), study.misleading(modality)
        lines += [
            (f"{modality} alone has a species with APCER of at least {100 * APCER_BOUND:.0f} % at BPCER "
             f"{100 * BPCER_LIMIT:.0f} %: {'met' if is_met else 'missed'}{found}"),
            f"{modality} is the only informative one somewhere: {_met(alone)}",
            f"{modality} misleads somewhere: {_met(wrong)}"]
    return lines
