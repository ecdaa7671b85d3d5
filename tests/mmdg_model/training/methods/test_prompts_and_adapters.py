"""VP-FAS, ViT + AMA and channel cross-attention: their parts by hand, and what of them trains."""

import dataclasses
import math

import pytest
import torch

from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.inputs import InputSpecification
from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.methods.contract import MethodContext, OptimiserConfig
from mmdg_model.training.methods.registry import build
from mmdg_model.training.methods.vit_ama import AdaptedJointViT, AdaptiveMultimodalAdapter
from mmdg_model.training.methods.vit_cross import ChannelCrossAttention
from mmdg_model.training.methods.vp_fas import WITHHELD, consistency_loss, withhold
from mmdg_model.u_adapter import quick_gelu
from tests.mmdg_model.training.methods.builders import CLASSES, TOY, meta_backbone, method, samples, toy_backbone


def at_the_papers_size(name, parts):
    model = dataclasses.replace(ModelConfig.base(), trainable_parts=parts)
    return build(name, {}, MethodContext(
        model=model, inputs=InputSpecification(), classes=CLASSES, optimiser=OptimiserConfig(),
        backbone=meta_backbone(), compute=SingleProcess("meta"), seed=0))


@pytest.mark.parametrize("name", ["vit_ama", "vp_fas"])
@pytest.mark.parametrize("parts", [TrainableParts.RELEASE, TrainableParts.ADAPTERS_AND_HEAD])
def test_the_vit_stays_frozen_and_less_than_four_per_cent_trains(name, parts):
    found = at_the_papers_size(name, parts)
    assert not any(key.startswith("vit.") for key in found.trainable)
    every = sum(value.numel() for value in found.network.parameters())
    assert 0 < sum(value.numel() for value in found.trainable.values()) < 0.04 * every


def test_each_proper_subset_is_withheld_in_turn_and_never_all():
    assert WITHHELD == ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
    present = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])
    assert withhold(present, (0, 2)).tolist() == [[False, True, False], [True, False, True], [True, False, False]]
    found = method("vp_fas", settings={"consistency_weight": 1.0})
    terms = [found.update([samples()])["loss/consistency"] for _ in range(3)]
    assert all(term > 0 for term in terms)


def test_consistency_by_hand_and_its_gradient():
    whole, partial = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])
    assert consistency_loss(whole, partial).tolist() == [2.0]
    whole, partial = (torch.randn(3, 4, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda given: consistency_loss(whole.detach(), given), (partial,))
    assert torch.autograd.grad(consistency_loss(whole, partial).sum(), whole, allow_unused=True) == (None,)


def test_no_consistency_is_one_pass_a_sample():
    found, seen = method("vp_fas", settings={"consistency_weight": 0.0}), []
    found.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    assert found.update([samples()])["loss/consistency"] == 0.0
    assert seen == [8]


def test_silent_adapters_leave_the_joint_vit_as_it_was():
    batch, backbone = samples(), toy_backbone()
    network = AdaptedJointViT(TOY, dropout=0.0).eval()
    network.vit.place(backbone, TOY)
    with torch.no_grad():
        spoken = network(batch.planes, batch.present)
        tokens = network.vit.embedding(batch.planes.flatten(0, 1)).reshape(8, 3, 5, 24)
        stream = torch.cat([tokens[:, 0, :1], *(tokens[:, index, 1:] for index in range(3))], dim=1)
        for block in network.vit.blocks:
            stream = stream + block.attention(block.attention_norm(stream))
            stream = stream + block.mlp(block.mlp_norm(stream))
        torch.testing.assert_close(spoken, network.head(network.vit.norm(stream[:, 0])))


def test_the_adaptive_adapter_by_its_formula():
    torch.manual_seed(3)
    adapter = AdaptiveMultimodalAdapter(width=6, adapter_width=2, dropout=0.0).double()
    torch.nn.init.normal_(adapter.up.weight)
    tokens = torch.randn(2, 1 + 3 * 4, 6, dtype=torch.float64)
    narrow = quick_gelu(adapter.down(tokens))
    maps = torch.cat([narrow[:, 1 + 4 * m:5 + 4 * m].transpose(1, 2).reshape(2, 2, 2, 2) for m in range(3)], dim=1)
    weight = torch.sigmoid(adapter.weigh(maps.mean(dim=(2, 3))))
    mixed = adapter.mix(maps)
    parts = [adapter.mix(narrow[:, 0].repeat(1, 3)[:, :, None, None])[:, :, 0, 0][:, None] * weight.mean(dim=1)[
        :, None, None]]
    parts += [(weight[:, m, None, None, None] * mixed).flatten(2).transpose(1, 2) for m in range(3)]
    torch.testing.assert_close(adapter(tokens), adapter.up(quick_gelu(torch.cat(parts, dim=1))))


def test_channel_attention_by_its_formula_and_only_over_what_is_there():
    torch.manual_seed(4)
    fusion = ChannelCrossAttention(width=6, channels=8).double()
    patches, read = torch.randn(1, 3, 4, 6, dtype=torch.float64), torch.tensor([[True, True, False]])
    fused = 0.0
    for first in range(2):
        for second in range(2):
            query, key = fusion.query(patches[0, first]).T, fusion.key(patches[0, second]).T
            fused = fused + torch.softmax(query @ key.T / math.sqrt(4), dim=-1) @ fusion.value(patches[0, second]).T / 4
    expected = torch.relu(fusion.norm(fusion.mix(fused.reshape(1, 8, 2, 2)))).mean(dim=(2, 3))
    torch.testing.assert_close(fusion(patches, read), expected)
    patches[0, 2] = 9.0
    torch.testing.assert_close(fusion(patches, read), expected)
