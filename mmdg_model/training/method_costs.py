"""What a method costs: parameters, operations, time of a training step and of a forward, peak memory.

All on made-up samples of the right shapes: costs do not depend on what is seen. Times are the fastest of a few, by
sample. A method's memory is measured in a process of its own (`measure_apart`), because a process never gives back all
that another method took.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmdg_model.config import ModelConfig
from mmdg_model.inputs import InputSpecification
from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.environment import describe_machine
from mmdg_model.training.methods import registry
from mmdg_model.training.methods.contract import Method, MethodContext, OptimiserConfig, TrainingBatch
from mmdg_model.training.run_config import ModelChoice, RunConfig
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.weights.backbone import Backbone, BackboneConfig
from mmdg_model.whole_file import write_whole

#: Of a training step: of each source one live face and one attack.
SOURCES = ("C", "P", "S")
BATCH = 2 * len(SOURCES)
#: A step that takes longer than this is measured once.
_LONG_S = 2.0


class MethodCostError(ValueError):
    """A table of costs cannot be read, or a method not be measured; the message quotes what and the remedy."""


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """One method on one machine.

    Attributes:
        method, preset, image_size, batch: what was measured; `batch` samples a step.
        parameters, trainable: numbers of weights of the network.
        forward_gflop: operations of one sample's score, in 10^9; a multiplication and its addition are two. Matrix
            products, convolutions and attention only.
        forward_ms, step_ms: of one sample, as a share of its batch; a step is forward, backward and optimiser.
        peak_mib: most memory of the process in training steps, over what it held before the method was made; None where
            it was not measured apart.
        device, threads, processor, date: where and when.
    """

    method: str
    preset: str
    image_size: int
    batch: int
    parameters: int
    trainable: int
    forward_gflop: float
    forward_ms: float
    step_ms: float
    peak_mib: float | None
    device: str
    threads: int
    processor: str
    date: str


def measure(config: RunConfig, *, with_backbone: bool = False, repeats: int = 3,
            clock: Callable[[], float] = time.perf_counter) -> MethodCost:
    """Builds the method and times it in this process, on the processor, with torch's present number of threads.

    Args:
        config: its method, settings, model and optimiser count; data, recipe and protocol do not.
        with_backbone: as if started from a pretrained ViT (drawn at random here): `trainable_parts` then holds.
            Without, a configuration that freezes random weights is an error.

    Raises:
        MethodError, ConfigError: the method cannot be built so.
    """
    model = config.model.resolve()
    before_mib = _fresh_peak_mib()
    method = registry.build(config.method, config.settings, _context(model, config, with_backbone))
    batch = made_up_batch(model)
    method.start_epoch(0, lambda: iter([batch]))
    step_s = _fastest(lambda: method.update([batch]), repeats, clock)
    peak_mib = _peak_mib() - before_mib
    forward_s = _fastest(lambda: method.score(batch.planes, batch.present), repeats, clock)
    parameters = list(method.network.parameters())
    about = describe_machine(SingleProcess(), first_update=0)
    return MethodCost(
        method=config.method, preset=config.model.preset, image_size=model.image_size, batch=BATCH,
        parameters=sum(each.numel() for each in parameters),
        trainable=sum(each.numel() for each in parameters if each.requires_grad),
        forward_gflop=forward_operations(method, batch) / 1e9, forward_ms=1e3 * forward_s / BATCH,
        step_ms=1e3 * step_s / BATCH, peak_mib=round(peak_mib, 1), device="cpu", threads=torch.get_num_threads(),
        processor=str(about["processor"]), date=datetime.now(UTC).date().isoformat())


def forward_operations(method: Method, batch: TrainingBatch) -> float:
    """Of scoring one sample, as `torch.utils.flop_counter` counts: a multiplication and its addition are two."""
    with FlopCounterMode(display=False) as counter:
        method.score(batch.planes[:1], batch.present[:1])
    return float(counter.get_total_flops())


def made_up_batch(model: ModelConfig, seed: int = 0) -> TrainingBatch:
    """Noise: of each source a live face and an attack, all modalities there."""
    generator = torch.Generator().manual_seed(seed)
    side = model.image_size
    label = torch.tensor([1, 0]).repeat(len(SOURCES))
    source = torch.arange(len(SOURCES)).repeat_interleave(2)
    return TrainingBatch(planes=torch.randn(BATCH, 3, 3, side, side, generator=generator),
                         present=torch.ones(BATCH, 3, dtype=torch.bool), label=label,
                         domain=torch.where(label == 1, 0, 1 + source), source=source)


def _context(model: ModelConfig, config: RunConfig, with_backbone: bool) -> MethodContext:
    return MethodContext(
        model=model, inputs=InputSpecification(image_size=model.image_size, absence=model.absence),
        classes=DomainClasses(SOURCES), optimiser=config.optimiser, compute=SingleProcess(), seed=config.seed,
        weights_follow=True,  # costs are the same whatever the weights
        backbone=random_backbone(model) if with_backbone else None)


def random_backbone(model: ModelConfig, seed: int = 0) -> Backbone:
    """A ViT of the model's shape that nobody trained: for measuring what a start from one costs, for nothing else."""
    names = {each.name for each in dataclasses.fields(ModelConfig)}
    shape = BackboneConfig(**{each.name: getattr(model, each.name) for each in dataclasses.fields(BackboneConfig)
                              if each.name in names})
    generator = torch.Generator().manual_seed(seed)
    return Backbone(config=shape, layout="drawn at random", source_sha256="0" * 64, pixel_mean=(0.5,) * 3,
                    pixel_std=(0.5,) * 3, created_by="a measurement of costs",
                    weights={name: 0.02 * torch.randn(size, generator=generator)
                             for name, size in shape.shapes().items()})


def _fastest(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The first call only warms up, unless it takes so long that it must do."""
    fastest = float("inf")
    for turn in range(repeats + 1):
        started = clock()
        call()
        seconds = clock() - started
        if turn == 0 and seconds < _LONG_S:
            continue
        fastest = min(fastest, seconds)
        if fastest >= _LONG_S:
            break
    return fastest


def _fresh_peak_mib() -> float:
    """Forgets the most memory that this process held (importing takes much), where the system can; returns what it
    holds now."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status_mib("VmRSS")
    except (OSError, ValueError):
        return _peak_mib()


def _peak_mib() -> float:
    """The most that this process has held, since it was last forgotten."""
    try:
        return _status_mib("VmHWM")
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    if found is None:
        raise ValueError(f"/proc/self/status has no {name}")
    return float(found.split()[1]) / 1024


def measure_apart(config: RunConfig, *, with_backbone: bool = False, repeats: int = 3, threads: int = 1,
                  timeout_s: float = 600.0) -> MethodCost:
    """`measure` in a process of its own.

    Raises:
        MethodCostError: it failed there; its last words are quoted.
    """
    words = json.dumps({"config": json.loads(config.to_json()), "with_backbone": with_backbone, "repeats": repeats,
                        "threads": threads})
    try:
        answer = subprocess.run([sys.executable, "-m", "mmdg_model.training.method_costs", words], text=True,
                                capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise MethodCostError(f"{config.method}: not measured in {timeout_s:g} s; choose a smaller preset") from error
    if answer.returncode:
        said = answer.stderr.strip().splitlines()
        raise MethodCostError(f"{config.method}: {said[-1] if said else f'exit code {answer.returncode}'}")
    return msgspec.json.decode(answer.stdout, type=MethodCost)


# ---- tables ----

def to_csv(costs: Iterable[MethodCost]) -> str:
    """A line a method, under the names of `MethodCost`'s fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [each.name for each in dataclasses.fields(MethodCost)]
    writer.writerow(names)
    for cost in costs:
        values = (getattr(cost, name) for name in names)
        writer.writerow(["" if value is None else f"{value:.4g}" if isinstance(value, float) else value
                         for value in values])
    return text.getvalue()


def read_costs(path: Path) -> list[MethodCost]:
    """What `to_csv` wrote.

    Raises:
        MethodCostError: it cannot be read, or a line is none; quotes the line.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MethodCostError(f"{path} cannot be read: {error}") from error
    costs = []
    for number, line in enumerate(lines, 2):
        try:
            values: dict[str, Any] = dict(line) | {"peak_mib": line.get("peak_mib") or None}
            costs.append(msgspec.convert(values, MethodCost, strict=False))
        except msgspec.ValidationError as error:
            raise MethodCostError(f"{path}, line {number}: {error}; measure again: python "
                                  "benchmarks/method_costs.py") from error
    if not costs:
        raise MethodCostError(f"{path} holds no costs; measure them: python benchmarks/method_costs.py")
    return costs


def step_timings(costs: Iterable[MethodCost]) -> Mapping[tuple[str, str], float]:
    """Seconds of a training step by sample, by (method, preset): what `benchmark_grid.estimate` takes."""
    return {(cost.method, cost.preset): cost.step_ms / 1e3 for cost in costs}


def calibrate(configs: Sequence[RunConfig], *, threads: int = 1,
              on_method: Callable[[str], None] = lambda _: None) -> list[MethodCost]:
    """A short measurement of each method among some runs: the first run of each, a step or two, in this process.

    Args:
        threads: of torch meanwhile. on_method: told of each before it is measured.

    A method that cannot be built is left out: its runs are then estimated by arithmetic, and say why when they start.
    """
    first: dict[tuple[str, str], RunConfig] = {}
    for config in configs:
        first.setdefault((config.method, config.model.preset), config)
    costs = []
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for config in first.values():
            on_method(config.method)
            try:
                measured = measure(config, with_backbone=bool(config.backbone), repeats=2)
            except ValueError:
                continue
            costs.append(dataclasses.replace(measured, peak_mib=None))
    finally:
        torch.set_num_threads(threads_before)
    return costs


def write_costs(path: Path, costs: Iterable[MethodCost]) -> None:
    """The CSV, whole or not at all."""
    write_whole(path, to_csv(costs).encode())


def config_of(method: str, preset: str, *, everything: bool) -> RunConfig:
    """A method with its defaults, and its recipe's settings, at a preset.

    Args:
        everything: all weights train, as from a random start; else what the method trains of a pretrained ViT.
    """
    from mmdg_model.training.method_recipes import method_recipe
    recipe = method_recipe(method)
    changes = {"trainable_parts": "everything"} if everything else {}
    return RunConfig(method=method, settings=recipe.settings, model=ModelChoice(preset=preset, changes=changes),
                     optimiser=msgspec.convert(dict(recipe.run.get("optimiser", {})), OptimiserConfig))


def _main(words: str) -> None:
    from mmdg_model.training.run_config import from_plain
    asked = json.loads(words)
    torch.set_num_threads(asked["threads"])
    cost = measure(from_plain(asked["config"]), with_backbone=asked["with_backbone"], repeats=asked["repeats"])
    sys.stdout.write(msgspec.json.encode(cost).decode())


if __name__ == "__main__":
    _main(sys.argv[1])
