"""What ReGrad costs a training step, and what it does to the first step of a fresh network.

    python benchmarks/regrad.py [--quick] [--batch 4] [--rounds 3] [--threads 1]

Network `tiny`, random weights, noise as input, labels in turn: the times do not depend on the content, the shares of
conflicts and of small gradients do, and say nothing of faces. Adapters' up projections are 0 in a fresh network and no
gradient passes them; they are drawn from N(0, 0.001²) here, a step or two into training. All figures and ratios are
from this run on this machine; JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from mmdg_model.config import ModelConfig
from mmdg_model.network import MMDG, build_mmdg
from mmdg_model.trainable import freeze_the_rest
from mmdg_model.training.prototypes import PrototypeBatch, PrototypeConfig, sum_class_tokens
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradTarget
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.training.step_gradients import ObjectiveConfig, StepGradients, batch_gradients

CLASSES = DomainClasses(("C", "P", "S"))
CHOICES = {"off": ReGradConfig(cases=ReGradCases.OFF)} | {str(target): ReGradConfig(target=target)
                                                         for target in ReGradTarget}


def build_network() -> MMDG:
    torch.manual_seed(0)
    network = build_mmdg(ModelConfig.tiny())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_(std=1e-3)
    return network.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    network = build_network()
    trainable = freeze_the_rest(network)
    generator = torch.Generator().manual_seed(1)
    planes = torch.randn(arguments.batch, 3, 3, 224, 224, generator=generator)
    present = torch.ones(arguments.batch, 3, dtype=torch.bool)
    domain = torch.arange(arguments.batch) % len(CLASSES.rows)
    sums = sum_class_tokens(network, [PrototypeBatch(planes, present, domain)], CLASSES, PrototypeConfig(), seed=0,
                            epoch=0)
    prototypes = sums.prototypes(PrototypeConfig(batch_share=0.5))

    report: dict[str, object] = {"batch": arguments.batch, "threads": arguments.threads, "torch": torch.__version__}
    baseline_ms = 0.0
    for name, choice in CHOICES.items():
        config = ObjectiveConfig(regrad=choice)
        backward_ms, modulation_ms = [], []
        for _ in range(1 if arguments.quick else arguments.rounds):
            torch.manual_seed(2)  # the adapters' dropout
            output = network(planes, present)
            started = time.perf_counter()
            step = StepGradients.empty(trainable, config)
            step.add(batch_gradients(output, label_B=(domain == 0).long(), domain_B=domain, present_BM=present,
                                     prototypes=prototypes, trainable=trainable, config=config))
            gathered = time.perf_counter()
            _, record = step.update(config)
            backward_ms.append((gathered - started) * 1e3)
            modulation_ms.append((time.perf_counter() - gathered) * 1e3)
        baseline_ms = baseline_ms or statistics.median(backward_ms)
        squares = [float(gradient.double().square().sum()) for tensor, gradients in step.by_modality.items()
                   if ".adapters." in tensor for gradient in gradients]
        reached = [square for square in squares if square]
        report[name] = {
            "backward_ms": round(statistics.median(backward_ms), 1),
            "modulation_ms": round(statistics.median(modulation_ms), 1),
            "backward_against_off": round(statistics.median(backward_ms) / baseline_ms, 2),
            "modulated_tensors": record.regrad.modulated_tensors,
            "conflict_rate": record.regrad.conflict_rate,
            "relative_change": record.regrad.relative_change,
            "adapter_gradients_with_square_below_1e-8": (
                sum(square < 1e-8 for square in reached) / len(reached) if reached else None),
            "fast": record.regrad.fast,
            "ssp_entropy": record.ssp_entropy,
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
