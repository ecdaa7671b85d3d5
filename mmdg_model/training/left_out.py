"""Leave-one-species-out: what training and validation lists hold without some attack species."""

from __future__ import annotations

from collections.abc import Sequence

from mmdg_model.training.run_config import RunConfigError
from mmdg_model.training.samples import UNKNOWN, Domain, Sample

Samples = tuple[Sample, ...]


def without_species(species: Sequence[str], training: Samples,
                    selection: Samples) -> tuple[set[Domain], Samples, Samples]:
    """Training and validation samples without those species.

    A source that has no attack left in training goes out whole, its live faces too: kept, they would teach that its
    cameras show live faces only. Test lists never pass through here.

    Returns:
        The domains that still train, the training samples and the validation samples.

    Raises:
        RunConfigError: no training sample is of any of the species (a misspelt name would leave nothing out and claim
            that it did), an attack whose species is unknown (it could be one of them), or no attack left at all.
    """
    if not species:
        return {sample.domain for sample in training}, training, selection
    both = training + selection
    if unknown := [sample for sample in both if not sample.bona_fide and sample.species == UNKNOWN]:
        raise RunConfigError(f"run configuration: leave_out_species is {', '.join(species)}, but the species of "
                             f"{len(unknown)} attacks of list {unknown[0].domain}-{unknown[0].split} is unknown, such "
                             f"as {unknown[0].name}; name a metadata file that tells it")
    if not any(sample.species in species for sample in training):
        known = sorted({sample.species for sample in training if not sample.bona_fide})
        raise RunConfigError(f"run configuration: leave_out_species is {', '.join(species)}, and no training sample is "
                             f"of any of them; there are {', '.join(known)}")
    kept = [sample for sample in training if sample.species not in species]
    domains = {sample.domain for sample in kept if not sample.bona_fide}
    if not domains:
        raise RunConfigError(f"run configuration: leave_out_species is {', '.join(species)}, which leaves no attack to "
                             "train on; name fewer")
    return (domains, tuple(sample for sample in kept if sample.domain in domains),
            tuple(sample for sample in selection if sample.species not in species and sample.domain in domains))
