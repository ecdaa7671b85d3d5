"""What one process of a group computes from its shard; imported afresh by each spawned process."""

import os
from itertools import product

import torch
from safetensors.torch import save_file
from torch import distributed

from mmdg_model.training.prototypes import PrototypeBatch, PrototypeConfig, sum_class_tokens
from mmdg_model.training.regrad import ReGradTarget
from mmdg_model.uncertainty import BatchAggregation
from tests.mmdg_model.training.builders import (
    CLASSES,
    fresh_prototypes,
    labelled_batch,
    objective,
    step_of,
    training_network,
)

#: Batches of sample indices that each process accumulates: unequal, one of them without infrared, one with nothing.
SHARDINGS = {"whole": ([range(8)], []), "unequal": ([[0, 1, 2, 4], [5, 7]], [[3, 6]]),
             "one idle": ([range(5), [5, 6, 7]], [])}
CASES = list(product(ReGradTarget, BatchAggregation))


def samples():
    """Eight samples; 3 and 6 have no infrared, 1 no depth."""
    return labelled_batch(8, absent=[(3, 2), (6, 2), (1, 1)])


def results(sharding, rank, reduce):
    """Updates, statistics and prototypes of the process's batches, joined with the others' where `reduce`."""
    network, trainable = training_network()
    whole, prototypes = samples(), fresh_prototypes(network)
    batches = [whole.rows(list(rows)) for rows in SHARDINGS[sharding][rank]]
    found = {}
    for target, aggregation in CASES:
        config = objective(target=target, aggregation=aggregation)
        step = step_of(network, trainable, batches, prototypes, config)
        if reduce:
            step.all_reduce()
        updates, record = step.update(config)
        found |= {f"{target}/{aggregation}/{name}": value.clone() for name, value in updates.items()}
        found[f"{target}/{aggregation}/record"] = torch.tensor(
            [record.cross_entropy, record.regrad.conflict_rate, record.regrad.relative_change, *record.ssp_entropy,
             *record.regrad.ssp_losses, *record.regrad.certainty], dtype=torch.float64)
    sums = sum_class_tokens(network, [PrototypeBatch(b.planes, b.present, b.domain) for b in batches], CLASSES,
                            PrototypeConfig(), seed=0, epoch=0, rank=rank)
    if reduce:
        sums.all_reduce()
    found["prototypes"] = sums.prototypes(PrototypeConfig()).values
    return found


def process(rank, folder):
    """Entry point of a spawned process: every sharding in one gloo group of two."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        for sharding in SHARDINGS:
            save_file(results(sharding, rank, reduce=True), f"{folder}/{sharding}-{rank}.safetensors")
    finally:
        distributed.destroy_process_group()
