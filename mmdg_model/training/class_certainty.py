"""U_m for ReGrad from a network whose adapters do without: row "Eq. 4 no, Eq. 5 yes" of the paper's Table 5.

A network built with `uncertainty_estimator = none` says that every class token is certain. Its activations are there
all the same, and another estimator can read them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from torch import Tensor, nn

from mmdg_model.network import MMDG, MODALITIES, NetworkOutput
from mmdg_model.uncertainty import TokenUncertainty


class ClassCertainty:
    """Reads the class tokens' certainty of each forward pass inside the `with` block; the network is unchanged.

        config = replace(network.config, uncertainty_estimator=UncertaintyEstimatorKind.ANALYTIC)
        with ClassCertainty(network, build_uncertainty(config)) as certainty:
            output = certainty.read_into(network(planes, present), present)

    Args:
        network: listened to at the attention of its last block.
        uncertainty: the estimator to read with.
    """

    def __init__(self, network: MMDG, uncertainty: TokenUncertainty) -> None:
        self._attention = network.get_submodule(f"blocks.{len(network.blocks) - 1}.block.attention")
        self._uncertainty = uncertainty
        self._certainty_S: Tensor | None = None

    def __enter__(self) -> Self:
        self._hook = self._attention.register_forward_hook(self._listen)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._hook.remove()

    def read_into(self, output: NetworkOutput, present_BM: Tensor) -> NetworkOutput:
        """The output of the pass just made, with the certainty that the estimator reads; 0 where absent.

        Raises:
            RuntimeError: no pass was made since the last reading.
        """
        if self._certainty_S is None:
            raise RuntimeError("no forward pass to read; call the network inside the `with` block first")
        certainty_BM = self._certainty_S.reshape(len(MODALITIES), -1).T
        self._certainty_S = None
        return output._replace(class_certainty=certainty_BM * present_BM.to(certainty_BM.dtype))

    def _listen(self, attention: nn.Module, arguments: tuple[Tensor, ...], attended: Tensor) -> None:
        # The network stacks modalities before samples: `[m * b, n, d]`. The class token comes first.
        self._certainty_S = self._uncertainty(attended[:, :1])[:, 0, 0]
