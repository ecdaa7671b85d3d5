"""A whole run in a second: a tiny network with dropout, a state of its own and a frozen part, on drawn samples.

As a program, for runs that are killed: `python -m tests.mmdg_model.training.toy_run FOLDER [--kill ...]`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional as F

from mmdg_model.inputs import InputSpecification, PreparedInputs
from mmdg_model.scorer import Modality
from mmdg_model.training.assemble import run_training
from mmdg_model.training.compute import SingleProcess, TrainingDiverged
from mmdg_model.training.methods.contract import MethodContext, OptimiserConfig, TrainingBatch
from mmdg_model.training.run_config import MachineConfig, ModelChoice, RecipeConfig, RunConfig
from mmdg_model.training.run_data import ScoringBatch
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.samples import Domain, Sample, Split
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.training.trainer import train

SIZE, SAMPLES, VALIDATION, BATCH = 8, 20, 12, 8
UPDATES_PER_EPOCH = 3  # of 8, 8 and 4 samples


def toy_config(**changes):
    """Three epochs of three updates."""
    recipe = RecipeConfig(**({"epochs": 3, "batch_size": BATCH} | changes.pop("recipe", {})))
    optimiser = OptimiserConfig(**({"learning_rate": 1e-2, "warmup_updates": 2, "final_rate_share": 0.1}
                                   | changes.pop("optimiser", {})))
    values = {"method": "toy", "data": "drawn", "recipe": recipe, "optimiser": optimiser, "settings": {"dropout": 0.3},
              "model": ModelChoice(preset="micro")}
    return RunConfig(**(values | changes))


def toy_machine(**changes):
    values = {"root": Path("nowhere"), "lists": Path("nowhere"), "accelerator": "cpu", "threads": 1,
              "tensorboard": False}
    return MachineConfig(**(values | changes))


class ToyData:
    """Implements `RunData`: pixels drawn from (seed, epoch, place); live faces are brighter."""

    classes = DomainClasses(("C", "P", "S"))
    inputs = InputSpecification(image_size=SIZE)
    fingerprint = "drawn"
    simulated = False
    updates_per_epoch = UPDATES_PER_EPOCH

    def __init__(self, config=None, rank=0, world_size=1):
        self.seed, self.accumulate = (config.seed, config.recipe.accumulate) if config else (0, 1)
        self.rank, self.world_size = rank, world_size
        self.troubles = []
        self.epochs_entered = []

    def sample(self, key):
        rng = np.random.default_rng(key)
        live = int(rng.integers(2))
        planes = rng.normal(0.5 * live, 1.0, (3, 3, SIZE, SIZE)).astype(np.float32)
        return planes, live, int(rng.integers(3))

    def batch(self, keys):
        drawn = [self.sample(key) for key in keys]
        label = torch.tensor([live for _, live, _ in drawn], dtype=torch.int64)
        source = torch.tensor([source for _, _, source in drawn], dtype=torch.int64)
        return TrainingBatch(planes=torch.from_numpy(np.stack([planes for planes, _, _ in drawn])),
                             present=torch.ones(len(drawn), 3, dtype=torch.bool), label=label,
                             domain=torch.where(label == 1, 0, 1 + source), source=source)

    def parts(self, places, epoch):
        mine = places[self.rank::self.world_size]
        cut = [part for part in np.array_split(mine, self.accumulate) if len(part)]
        return [self.batch([(self.seed, epoch, int(place)) for place in part]) for part in cut]

    def epoch(self, epoch, *, first_update=0):
        self.epochs_entered.append((epoch, first_update))
        order = np.random.default_rng([self.seed, epoch]).permutation(SAMPLES)
        for update in range(first_update, UPDATES_PER_EPOCH):
            torch.rand(3), np.random.random(2)  # a loader that draws must not matter
            yield self.parts(order[update * BATCH:(update + 1) * BATCH], epoch)

    def clean_batches(self):
        yield self.batch([(self.seed, 999, place) for place in range(self.rank, SAMPLES, self.world_size)])

    def selection(self):
        for begin in range(0, VALIDATION, 5):
            places = [place for place in range(begin, min(begin + 5, VALIDATION))
                      if place % self.world_size == self.rank]
            if places:
                yield self.scoring_batch(places)

    test = selection

    def scoring_batch(self, places):
        drawn = [self.sample((self.seed, 1000, place)) for place in places]
        samples = [Sample(domain=Domain.CEFA, split=Split.VALIDATION, line=place + 1, name=f"{place}.jpg",
                          bona_fide=bool(live), species="bona_fide" if live else "print",
                          subject="unknown" if place == 0 else f"{place:02}", recording=f"{place}",
                          files={modality: Path(f"{place}.jpg") for modality in Modality})
                   for place, (_, live, _) in zip(places, drawn, strict=True)]
        present = np.ones((len(places), 3), dtype=np.bool_)
        present[:, 2] = np.array(places) % 3 > 0
        return ScoringBatch(inputs=PreparedInputs(np.stack([planes for planes, _, _ in drawn]), present),
                            samples=samples, rows=np.array(places))

    def take_waiting_share(self):
        return 0.25

    def close(self):
        pass


class ToyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(9 * SIZE * SIZE, 16)
        self.head = nn.Linear(16, 2)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.frozen.requires_grad_(False)


class ToyMethod:
    """Implements `Method`. Its loss depends on global generators, on a buffer, and on a mean taken each epoch."""

    def __init__(self, context, dropout=0.3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self.network = ToyNetwork().to(context.compute.device)
        self.compute, self.dropout = context.compute, dropout
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimisers = {"all": torch.optim.Adam(trained, lr=context.optimiser.learning_rate)}
        self.mean = torch.zeros(16)

    def tokens(self, planes):
        return torch.tanh(self.network.frozen(planes.flatten(1)))

    def start_epoch(self, epoch, clean_batches):
        with torch.no_grad():
            sums = torch.stack([self.tokens(batch.planes).double().sum(0) for batch in clean_batches()]).sum(0)
        if self.compute.world_size > 1:
            distributed.all_reduce(sums)
        self.mean = (sums / SAMPLES + 0.5 * self.mean).float()
        return {"prototypes/variance": float(self.mean.var()), "drawn": float(torch.rand(()))}

    def update(self, batches):
        self.network.train()
        gradients = [torch.zeros_like(p) for p in self.network.head.parameters()]
        total = torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            with self.compute.autocast():
                tokens = F.dropout(self.tokens(batch.planes) - self.mean, self.dropout)
                loss = F.cross_entropy(self.network.head(tokens).float(), batch.label, reduction="sum")
            for kept, new in zip(gradients, torch.autograd.grad(loss * self.compute.loss_scale,
                                                                list(self.network.head.parameters())), strict=True):
                kept += new
            total += torch.tensor([float(loss.detach()), len(batch.label)], dtype=torch.float64)
        if self.compute.world_size > 1:
            for tensor in (*gradients, total):
                distributed.all_reduce(tensor)
        for parameter, gradient in zip(self.network.head.parameters(), gradients, strict=True):
            parameter.grad = gradient / total[1]
        self.compute.apply(self.optimisers["all"])
        self.network.updates += 1
        return {"loss/total": float(total[0] / total[1]), "ssp/rgb": float("nan"),
                "drawn": float(np.random.random() + random.random())}

    def score(self, planes, present):
        with torch.no_grad():
            logits = self.network.head(self.tokens(planes) - self.mean)
        return (logits[:, 1] - logits[:, 0]).float()

    def state(self):
        return {"mean": self.mean}, {"kind": "toy"}

    def load_state(self, tensors, metadata):
        if metadata.get("kind") != "toy":
            raise ValueError("no state of the toy method")
        self.mean = tensors["mean"]


class DivergingMethod(ToyMethod):
    """Its loss is NaN in the fifth update."""

    def update(self, batches):
        scalars = super().update(batches)
        if int(self.network.updates) == 5:
            raise TrainingDiverged("loss/total is nan")
        return scalars


def context(compute, config, data):
    return MethodContext(model=config.model.resolve(), inputs=data.inputs, classes=data.classes,
                         optimiser=config.optimiser, backbone=None, compute=compute, seed=config.seed)


def toy_train(folder, config=None, *, method=ToyMethod, data=None, machine=None, compute=None, **options):
    """A run in this process."""
    config = config or toy_config()
    data, compute = data or ToyData(config), compute or SingleProcess()
    return train(RunDirectory(Path(folder)), config, machine or toy_machine(), data=data,
                 method=method(context(compute, config, data), **config.settings), compute=compute, **options)


def killed(call, after):
    """`call`, but its Nth call kills this very process first, as a power cut would."""
    left = itertools.count(after - 1, -1)

    def counted(*arguments, **options):
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted


def main():
    """A run by `assemble.run_training`, killed where it is asked to be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill", choices=("update", "write"), help="the process in its Nth update, or Nth file")
    parser.add_argument("--after", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--precision", default="32-true")
    wanted = parser.parse_args()

    def build(config, context):
        method = ToyMethod(context, **config.settings)
        if wanted.kill == "update":
            method.update = killed(method.update, wanted.after)
        return method

    if wanted.kill == "write":
        # Between the writing of a file and its taking its place.
        Path.replace = killed(Path.replace, wanted.after)
    # A clock that counts its own readings: saves fall on the same updates in every run.
    outcome = run_training(
        RunDirectory(wanted.folder),
        toy_config(settings={"dropout": wanted.dropout}, precision=wanted.precision, data=""),
        toy_machine(devices=wanted.devices, save_every_s=8.0), clock=itertools.count().__next__,
        open_data=lambda config, machine, *, rank, world_size: ToyData(config, rank, world_size), build_method=build)
    print(outcome)


if __name__ == "__main__":
    main()
