"""What one process of a group trains on its shards, for every method; imported afresh by each spawned process."""

import os

import torch
from safetensors.torch import save_file
from torch import distributed

from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.methods.registry import METHODS
from tests.mmdg_model.training.methods.builders import DROPPED, double, precise, rows, samples

#: Sample indices of each update's parts by process: one idle, then unequal shares.
SHARES = (([[0, 1, 2, 3, 4], [5, 6, 7]], []), ([[0, 1, 2, 4], [5, 7]], [[3, 6]]))
#: Samples that each process reads for the prototypes.
CLEAN = ([[0, 1, 2], [3, 4, 5, 6]], [[7]])


class OneOfTwo(SingleProcess):
    """A process of a group."""

    def __init__(self, rank):
        super().__init__()
        self.rank = rank
        self.world_size = 2


def trained(name, ranks, compute):
    """Weights and log after two updates of the shares of `ranks`."""
    found = precise(name, compute=compute)
    whole, clean = double(samples(dropped=DROPPED)), double(samples())
    tensors = {}
    scalars = found.start_epoch(0, lambda: [rows(clean, part) for rank in ranks for part in CLEAN[rank]])
    tensors |= {f"{name}/epoch/{key}": torch.tensor(value, dtype=torch.float64) for key, value in scalars.items()}
    for number, shares in enumerate(SHARES):
        scalars = found.update([rows(whole, part) for rank in ranks for part in shares[rank]])
        tensors |= {f"{name}/{number}/{key}": torch.tensor(value, dtype=torch.float64)
                    for key, value in scalars.items()}
    return tensors | {f"{name}/{key}": value.clone() for key, value in found.network.state_dict().items()}


def process(rank, folder):
    """Entry point of a spawned process: every method in one gloo group of two."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        found = {}
        for name in METHODS:
            found |= trained(name, [rank], OneOfTwo(rank))
        save_file(found, f"{folder}/{rank}.safetensors")
    finally:
        distributed.destroy_process_group()
