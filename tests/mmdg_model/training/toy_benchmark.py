"""A whole benchmark in miniature: made-up samples of four domains, a linear network that truly learns, real files.

`ToyAssembly` stands where trees of data sets, trainer and methods stand. The machine's `root` holds `toy.json`, by
which a test makes a job crash, hang or see other target data:

    {"crash": ["vit_late"], "hang": [], "poison_target": false, "updates_per_epoch": 5}
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmdg_model.inputs import InputSpecification, PreparedInputs
from mmdg_model.scorer import Modality
from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.methods.contract import TrainingBatch
from mmdg_model.training.protocols import WITHHELD, Scenario, sub_protocol
from mmdg_model.training.run_assembly import Opened, Surveyed
from mmdg_model.training.run_config import RunConfig
from mmdg_model.training.run_data import ScoringBatch
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.samples import UNKNOWN, Domain, Sample, Split
from mmdg_model.training.scores import BONA_FIDE, ScoreTable, subset_name
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.whole_file import write_whole

SIDE = 2
SPECIES = (BONA_FIDE, "print", "replay", "mask")
DEFAULTS = {"updates_per_epoch": 5, "crash": [], "hang": [], "poison_target": False, "subjects": 12}


def toy_knobs(root: Path) -> dict:
    path = root / "toy.json"
    return DEFAULTS | (json.loads(path.read_text()) if path.is_file() else {})


def toy_samples(domain, split, subjects):
    """Each subject live once and once as each attack; two frames a video."""
    samples = []
    for subject in range(subjects):
        for species in SPECIES:
            for frame in range(2):
                video = f"{split}-{subject:03}-{species}"
                samples.append(Sample(
                    domain=Domain(domain), split=split, line=len(samples) + 1, name=f"{domain}/{video}/{frame}.jpg",
                    bona_fide=species == BONA_FIDE, species=species, subject=f"{split}-{subject:03}", recording=video,
                    files={}))
    return samples


def toy_planes(sample, *, poisoned=False):
    """`[3, 3, SIDE, SIDE]`: liveness is a level that each species hides a little more, differently in each domain."""
    rng = np.random.default_rng(zlib.crc32(sample.name.encode()))
    of_video = np.random.default_rng(zlib.crc32(f"{sample.domain}{sample.recording}".encode())).standard_normal()
    level = {BONA_FIDE: 1.0, "print": -1.0, "replay": -0.7, "mask": 0.1}[sample.species]
    if poisoned:
        return 10 * rng.standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    shift = 0.3 * list(Domain).index(sample.domain)
    return (level + shift + 0.5 * of_video + 0.5 * rng.standard_normal((3, 3, SIDE, SIDE))).astype(np.float32)


class ToyData:
    """Implements `RunData`."""

    def __init__(self, config, root):
        self.knobs = toy_knobs(root)
        self.protocol = sub_protocol(config.protocol)
        self.classes = DomainClasses(self.protocol.sources)
        self.inputs = InputSpecification()
        self.fingerprint = f"toy-{config.protocol}"
        self.simulated = self.knobs.get("simulated", True)
        self.updates_per_epoch = self.knobs["updates_per_epoch"]
        self.troubles = ()

    def _listed(self, domains, split):
        return [one for domain in domains for one in toy_samples(domain, split, self.knobs["subjects"])]

    def epoch(self, epoch, *, first_update=0):
        samples = self._listed(self.protocol.sources, Split.TRAIN)
        for update in range(first_update, self.updates_per_epoch):
            rng = np.random.default_rng([epoch, update])
            chosen = [samples[i] for i in rng.choice(len(samples), 32)]
            label = torch.tensor([int(one.bona_fide) for one in chosen])
            yield [TrainingBatch(
                planes=torch.from_numpy(np.stack([toy_planes(one) for one in chosen])),
                present=torch.ones(len(chosen), 3, dtype=torch.bool), label=label, domain=1 - label, source=label)]

    def clean_batches(self):
        return iter(())

    def selection(self):
        return self._scoring(self._listed(self.protocol.sources, Split.VALIDATION), Scenario.COMPLETE, False)

    def test(self, scenario):
        samples = self._listed(self.protocol.targets, Split.TEST)
        if self.knobs["poison_target"]:  # labels move by whole videos within the list, pixels are noise
            order = np.random.default_rng(3).permutation(len(samples) // 2)
            labels = [samples[2 * i] for i in order for _ in range(2)]
            samples = [dataclasses.replace(one, bona_fide=other.bona_fide, species=other.species)
                       for one, other in zip(samples, labels, strict=True)]
        return self._scoring(samples, scenario, self.knobs["poison_target"])

    def _scoring(self, samples, scenario, poisoned):
        present = np.array([modality not in WITHHELD[scenario] for modality in Modality])
        for start in range(0, len(samples), 50):
            chosen = samples[start:start + 50]
            planes = np.stack([toy_planes(one, poisoned=poisoned) for one in chosen])
            planes[:, ~present] = 0
            yield ScoringBatch(inputs=PreparedInputs(planes, np.tile(present, (len(chosen), 1))), samples=chosen,
                               rows=np.arange(start, start + len(chosen)))

    def take_waiting_share(self):
        return 0.0


def toy_ssp(method, update):
    """Log lines as of a method with SSP loss; null where a number does not exist."""
    if method not in ("mmdg", "u_adapter_ssp"):
        return {}
    losses = {f"ssp/{name}": 3.0 / (1 + 0.05 * speed * update) for speed, name in enumerate(Modality, 1)}
    return losses | {"ssp/variance": None if update == 1 else float(np.var(list(losses.values())))}


class ToyMethod:
    """Logistic regression over all pixels. Implements `Method`."""

    def __init__(self, seed, rate=0.02):
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(9 * SIDE * SIDE, 1))
        self.optimisers = {"all": torch.optim.Adam(self.network.parameters(), lr=rate)}

    def start_epoch(self, epoch, clean_batches):
        return {}

    def update(self, batches):
        optimiser = self.optimisers["all"]
        optimiser.zero_grad()
        loss = sum(nn.functional.binary_cross_entropy_with_logits(
            self.network(one.planes)[:, 0], one.label.float()) for one in batches)
        loss.backward()
        optimiser.step()
        return {"loss/total": loss.item()}

    @torch.no_grad()
    def score(self, planes, present):
        return self.network(planes)[:, 0]

    def state(self):
        return {}, {}

    def load_state(self, tensors, metadata):
        pass


def toy_score_split(method, batches, *, context, compute):
    """In list order, as the trainer's own scoring."""
    samples, logits, used = [], [], set()
    for batch in batches:
        logits.append(method.score(torch.from_numpy(batch.inputs.planes),
                                   torch.from_numpy(batch.inputs.present)).numpy().astype(np.float64))
        samples += batch.samples
        used |= {subset_name([m for m, there in zip(Modality, row, strict=True) if there])
                 for row in batch.inputs.present}
    (modalities,) = used
    column = lambda take: np.array([take(one) for one in samples])  # noqa: E731
    return ScoreTable(
        context=context, sample_id=column(lambda one: one.name), video_id=column(lambda one: one.recording),
        subject=column(lambda one: "" if one.subject == UNKNOWN else one.subject),
        domain=column(lambda one: str(one.domain)), species=column(lambda one: one.species),
        label=column(lambda one: int(one.bona_fide)).astype(np.int8), logit=np.concatenate(logits),
        modalities=np.full(len(samples), modalities))


class ToyAssembly:
    """Implements `Assembly`. Each kept epoch is a point to resume from."""

    def survey(self, config, machine):
        data = ToyData(config, machine.root)
        config = dataclasses.replace(config, data=data.fingerprint)
        return Surveyed(config=config, updates=config.recipe.epochs * data.updates_per_epoch, simulated=data.simulated)

    def train(self, directory: RunDirectory, config: RunConfig, machine):
        knobs = toy_knobs(machine.root)
        data = ToyData(config, machine.root)
        method = ToyMethod(config.seed, knobs.get("rates", {}).get(config.method, 0.02))
        write_whole(directory.config_file, config.to_json().encode())
        if directory.finished:
            return
        kept = directory.epochs()
        if kept:
            method.network.load_state_dict(directory.load_epoch(kept[-1])[0])
        started = time.monotonic()
        with directory.metrics_file.open("a") as metrics:
            for epoch in range(len(kept), config.recipe.epochs):
                for update, parts in enumerate(data.epoch(epoch)):
                    scalars = method.update(parts)
                    done = epoch * data.updates_per_epoch + update + 1
                    metrics.write(json.dumps({"kind": "update", "epoch": epoch, "update": done} | scalars
                                             | toy_ssp(config.method, done)) + "\n")
                metrics.write(json.dumps({"kind": "epoch_end", "epoch": epoch, "update": done,
                                          "source_validation/hter": 0.5 / (epoch + 2)}) + "\n")
                directory.save_epoch(epoch, method.network.state_dict(), set(method.network.state_dict()))
                if config.method in knobs["crash"]:
                    raise RuntimeError(f"made to crash after epoch {epoch}")
                if config.method in knobs["hang"]:
                    print("hanging", flush=True)
                    signal.pause()
                if config.method in knobs.get("die", []):
                    os.kill(os.getpid(), signal.SIGKILL)
        write_whole(directory.done_file, json.dumps(
            {"updates": config.recipe.epochs * data.updates_per_epoch, "epochs": config.recipe.epochs,
             "seconds": time.monotonic() - started}).encode())

    def open(self, directory, machine):
        config = directory.config()
        return Opened(data=ToyData(config, machine.root), method=ToyMethod(config.seed), compute=SingleProcess(),
                      score_split=toy_score_split)
