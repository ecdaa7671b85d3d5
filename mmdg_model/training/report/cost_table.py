"""The cost table: what each method needs, on one machine."""

from __future__ import annotations

from collections.abc import Sequence

from mmdg_model.training.method_costs import MethodCost
from mmdg_model.training.report.tables import TextCell, TextTable


def cost_table(costs: Sequence[MethodCost]) -> TextTable:
    """A row a method, in the order given; times and memory also as multiples of the first row's."""
    first = costs[0]
    lines = []
    for cost in costs:
        memory = "" if cost.peak_mib is None else f"{cost.peak_mib:.0f}"
        lines.append((TextCell(cost.method, strong=True), TextCell(f"{cost.parameters / 1e6:.2f}"),
                      TextCell(f"{cost.trainable / 1e6:.2f}"), TextCell(f"{cost.forward_gflop:.2f}"),
                      TextCell(f"{cost.forward_ms:.1f}"), TextCell(f"{cost.forward_ms / first.forward_ms:.2f}"),
                      TextCell(f"{cost.step_ms:.1f}"), TextCell(f"{cost.step_ms / first.step_ms:.2f}"),
                      TextCell(memory)))
    machines = "; ".join(dict.fromkeys(
        f"{cost.processor}, {cost.threads} thread{'s' if cost.threads > 1 else ''}, {cost.device}, {cost.date}"
        for cost in costs))
    shapes = "; ".join(dict.fromkeys(f"{cost.preset}, {cost.image_size} pixels, {cost.batch} samples a step"
                                     for cost in costs))
    return TextTable(
        caption="What each method costs. Operations: of scoring one sample, a multiplication and its addition are two. "
                "Times: of one sample, the fastest of a few repeats on made-up samples; a step is forward, backward "
                f"and optimiser. ×: as a multiple of {first.method}. Memory: most that training steps added to the "
                f"process (empty: not measured apart). {shapes}. {machines}.",
        header=("method", "weights (10⁶)", "trained (10⁶)", "forward (GFLOP)", "forward (ms)", "×", "step (ms)", "×",
                "memory (MiB)"), rows=tuple(lines))
