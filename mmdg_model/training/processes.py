"""What the processes of a run tell each other beside gradients: small numbers and blobs of bytes, never pickles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed

from mmdg_model.training.compute import Compute


def sum_over_processes(values: Sequence[int], compute: Compute) -> list[int]:
    """Sums of each value; all processes call it at the same time with as many values."""
    if compute.world_size == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.int64, device=compute.device)
    distributed.all_reduce(sums)
    return [int(value) for value in sums.tolist()]


def gather_blobs(blob: bytes, compute: Compute) -> list[bytes]:
    """The blob of each process, by rank, in all processes; all call it at the same time."""
    if compute.world_size == 1:
        return [blob]
    lengths = [torch.zeros(1, dtype=torch.int64, device=compute.device) for _ in range(compute.world_size)]
    distributed.all_gather(lengths, torch.tensor([len(blob)], dtype=torch.int64, device=compute.device))
    sizes = [int(length) for length in lengths]
    padded = torch.zeros(max(1, *sizes), dtype=torch.uint8)
    padded[:len(blob)] = torch.frombuffer(bytearray(blob), dtype=torch.uint8) if blob else padded[:0]
    received = [torch.zeros(len(padded), dtype=torch.uint8, device=compute.device) for _ in sizes]
    distributed.all_gather(received, padded.to(compute.device))
    return [each[:size].cpu().numpy().tobytes() for each, size in zip(received, sizes, strict=True)]
