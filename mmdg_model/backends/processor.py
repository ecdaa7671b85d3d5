"""What this processor can do, as the operating system reports it: the reason for a choice of precision."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

#: Flags of instruction sets that matter to matrix products, in the kernel's spelling.
MATRIX_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
                "amx_fp16")


@functools.cache
def matrix_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Those of `MATRIX_FLAGS` that every core has; empty where the system does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    cores = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return frozenset(MATRIX_FLAGS).intersection(*cores) if cores else frozenset()


def processor_name() -> str:
    """Model name of the first core, or the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def has_bfloat16_products(flags: frozenset[str] | None = None) -> bool:
    """Whether bfloat16 matrix products run in hardware, faster than float32; without it they are emulated, slower."""
    return bool({"amx_bf16", "avx512_bf16"} & (matrix_flags() if flags is None else flags))
