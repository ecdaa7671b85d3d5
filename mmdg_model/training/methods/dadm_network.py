"""DADM's network (ICCV 2025, by its release): masks between modalities, CDC adapters, one hyperplane a source.

In each block of one ViT, a_m is what its attention gave modality m. For each pair (m, j):

    shared  = conv( depthwise-separable( [a_m; a_j] ) )          places of a map, the class tokens by a linear layer
    masks   = sigmoid( convs(shared) )                           one a channel and place for each of the two
    fused_m = linear( [mask_m · a_m; half of shared] ),  info_m = mean over tokens of [class token; mask_m · a_m]

    h_m ← h_m + a_m + MLP( norm(h_m + a_m) ) + adapter_m( mean of the two fused_m )

Legend: b batch, m modalities (order of `network.MODALITIES`), k sources, n tokens (class token first), d width,
s channels of what a pair shares, g patches a side.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig, PositionEmbedding
from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.training.methods.plain_vit import read_planes
from mmdg_model.training.methods.sample_norm import sample_norm
from mmdg_model.u_adapter import CentralDifferenceConvolution, quick_gelu
from mmdg_model.vit import INIT_STD, ViTBlock, build_block, build_embedding
from mmdg_model.weights.backbone import Backbone, check_fit

#: Indices of `MODALITIES`.
PAIRS = tuple(itertools.combinations(range(len(MODALITIES)), 2))

#: Of the adapters' convolution (release).
THETA = 0.7


class DadmOutput(NamedTuple):
    """What training reads.

    Attributes:
        by_source: `[b, k, 2]` logits of each source's hyperplane.
        class_tokens: `[b, m, d]`, 0 for a modality that is absent.
        information: for each pair, the info tokens of its two modalities in every block, `[blocks, b, d]` each.
    """

    by_source: Tensor
    class_tokens: Tensor
    information: dict[tuple[int, int], tuple[Tensor, Tensor]]


class PairMask(nn.Module):
    """See the module's text; the release's 256 channels at width 768, in proportion, groups in place of batches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        shared = 2 * (width // 6)
        half = shared // 2

        def three(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), sample_norm(outputs)]

        self.shared = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1, groups=2 * width), sample_norm(2 * width),
            nn.ReLU(), nn.Conv2d(2 * width, shared, kernel_size=1), sample_norm(shared), nn.ReLU(),
            *three(shared, shared), nn.ReLU())
        self.shared_class = nn.Linear(2 * width, shared)
        self.masks = nn.Sequential(*three(shared, half), nn.ReLU(), *three(half, half), nn.ReLU(),
                                   *three(half, 2 * width), nn.Sigmoid())
        self.fuse = nn.ModuleList(nn.Linear(width + half, width) for _ in range(2))

    def forward(self, first_BND: Tensor, second_BND: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Fused tokens `[b, n, d]` and info tokens `[b, d]` of the two."""
        both = torch.cat([first_BND, second_BND], dim=-1)
        grid = int((both.shape[1] - 1) ** 0.5)
        shared_BSGG = self.shared(both[:, 1:].transpose(1, 2).reshape(len(both), -1, grid, grid))
        masks_BNE = self.masks(shared_BSGG).flatten(2).transpose(1, 2)
        shared_BNS = torch.cat([self.shared_class(both[:, :1]), shared_BSGG.flatten(2).transpose(1, 2)], dim=1)
        fused, information = [], []
        for own_BND, mask_BND, half_BNS, fuse in zip((first_BND, second_BND), masks_BNE.chunk(2, dim=-1),
                                                     shared_BNS.chunk(2, dim=-1), self.fuse, strict=True):
            aligned_BND = torch.cat([own_BND[:, :1], mask_BND * own_BND[:, 1:]], dim=1)
            information.append(aligned_BND.mean(dim=1))
            fused.append(fuse(torch.cat([aligned_BND, half_BNS], dim=-1)))
        return fused, information


class CdcAdapter(nn.Module):
    """Down, QuickGELU, central difference convolution, QuickGELU, dropout, up; silent when fresh."""

    def __init__(self, *, width: int, adapter_width: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, adapter_width)
        self.convolution = CentralDifferenceConvolution(channels=adapter_width, theta=THETA)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(adapter_width, width)
        nn.init.xavier_uniform_(self.down.weight)
        for value in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(value)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """`[b, n, d]` to `[b, n, d]`."""
        term_BND: Tensor = self.up(self.dropout(quick_gelu(self.convolution(quick_gelu(self.down(tokens_BND))))))
        return term_BND


class DadmNetwork(nn.Module):
    """See the module's text."""

    def __init__(self, config: ModelConfig, *, sources: int, dropout: float) -> None:
        super().__init__()
        self.config, self.sources = config, sources
        self.embeddings = nn.ModuleList(build_embedding(config) for _ in MODALITIES)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.pairs = nn.ModuleList(nn.ModuleList(PairMask(config.width) for _ in PAIRS) for _ in range(config.depth))
        self.adapters = nn.ModuleList(nn.ModuleDict({
            str(modality): CdcAdapter(width=config.width, adapter_width=config.adapter_width, dropout=dropout)
            for modality in MODALITIES}) for _ in range(config.depth))
        self.head = nn.Linear(len(MODALITIES) * config.width, 2 * sources, bias=False)
        nn.init.trunc_normal_(self.head.weight, std=INIT_STD)

    def forward(self, planes: Tensor, present_BM: Tensor) -> NetworkOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to the mean hyperplane's logits; no certainty is estimated (ones)."""
        output = self.outputs(planes, present_BM)
        return NetworkOutput(output.by_source.mean(dim=1), output.class_tokens, present_BM.to(planes.dtype))

    def outputs(self, planes: Tensor, present_BM: Tensor) -> DadmOutput:
        """All that training reads. An absent modality's plane is 0 and its class token is left out.

        Raises:
            ValueError: as `read_planes`.
        """
        seen, read_BM = read_planes(planes, present_BM, self.config)
        streams = [embedding(seen[:, index]) for index, embedding in enumerate(self.embeddings)]
        information: dict[tuple[int, int], list[list[Tensor]]] = {pair: [] for pair in PAIRS}
        for module, masks, adapters in zip(self.blocks, self.pairs, self.adapters, strict=True):
            block, of = cast(ViTBlock, module), cast(nn.ModuleDict, adapters)
            attended = [block.attention(block.attention_norm(stream)) for stream in streams]
            fused: list[list[Tensor]] = [[] for _ in MODALITIES]
            for pair, mask in zip(PAIRS, cast(nn.ModuleList, masks), strict=True):
                of_pair, informed = mask(attended[pair[0]], attended[pair[1]])
                information[pair].append(informed)
                for index, tokens_BND in zip(pair, of_pair, strict=True):
                    fused[index].append(tokens_BND)
            streams = [self._next(block, stream, attended[index], of[MODALITIES[index]](sum(fused[index]) / 2))
                       for index, stream in enumerate(streams)]
        tokens_BMD = torch.stack([self.norm(stream[:, 0]) for stream in streams], dim=1)
        tokens_BMD = tokens_BMD * read_BM[:, :, None].to(tokens_BMD.dtype)
        by_source: Tensor = self.head(tokens_BMD.flatten(1)).reshape(-1, self.sources, 2)
        return DadmOutput(by_source, tokens_BMD, {
            pair: (torch.stack([each[0] for each in found]), torch.stack([each[1] for each in found]))
            for pair, found in information.items()})

    @staticmethod
    def _next(block: ViTBlock, stream: Tensor, attended: Tensor, term: Tensor) -> Tensor:
        residual = stream + attended
        following: Tensor = residual + block.mlp(block.mlp_norm(residual)) + term
        return following

    def place(self, backbone: Backbone) -> None:
        """Takes a ViT's weights. Raises `BackboneError`."""
        check_fit(self.config, backbone)
        placed: dict[str, Tensor] = {}
        for name, weight in backbone.weights.items():
            part, _, rest = name.partition(".")
            if part == "embedding" and (rest != "position"
                                        or self.config.position_embedding is PositionEmbedding.PRETRAINED):
                placed |= {f"embeddings.{index}.{rest}": weight for index in range(len(MODALITIES))}
            elif part in ("blocks", "norm"):
                placed[name] = weight
        unexpected = self.load_state_dict(placed, strict=False).unexpected_keys
        assert not unexpected, unexpected
