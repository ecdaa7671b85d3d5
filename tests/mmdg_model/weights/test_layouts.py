"""Which layout a file has: decided by all of its names, or asked for."""

import pytest
import torch

from mmdg_model.weights.layout import BLOCK, Layout, WeightImportError
from mmdg_model.weights.layouts import LAYOUTS, choose_layout, match_scores
from tests.mmdg_model.weights.references import REFERENCES
from tests.mmdg_model.weights.released import released_weights
from tests.mmdg_model.weights.test_plus_plus import plus_plus_weights

SAMPLES = {name: make for name, (make, _) in REFERENCES.items()} | {
    "mmdg": released_weights, "mmdg_plus_plus": plus_plus_weights}


@pytest.mark.parametrize("name", SAMPLES)
def test_auto_finds_the_layout(name):
    weights = SAMPLES[name]()
    scores = match_scores(weights)
    assert choose_layout("auto", weights, "file").name == next(iter(scores)) == name
    assert scores.pop(name) == 1.0
    assert max(scores.values()) < 0.9


def mixed():
    return SAMPLES["timm"]() | SAMPLES["torchvision"]()


@pytest.mark.parametrize(("weights", "best"), [
    (mixed(), r"timm \d\d%, torchvision \d\d%|torchvision \d\d%, timm \d\d%"),
    ({"conv.weight": torch.zeros(1)}, r"torchvision 0%"),
    ({name: weight for name, weight in SAMPLES["timm"]().items() if name != "norm.bias"}, r"timm 9\d%"),
    ({**{f"blocks.{number}.norm1.weight": torch.zeros(1) for number in range(400)}}, r"timm \d+%"),
])
def test_auto_asks_when_no_layout_fits_exactly(weights, best):
    with pytest.raises(WeightImportError, match=rf"weights file: no layout fits exactly \(names in common: ({best})") \
            as caught:
        choose_layout("auto", weights, "file")
    assert "--layout" in str(caught.value)
    assert all(name in str(caught.value) for name in LAYOUTS)


def test_auto_asks_when_several_fit(monkeypatch):
    monkeypatch.setitem(LAYOUTS, "twin", LAYOUTS["timm"])
    with pytest.raises(WeightImportError, match=r"several layouts fit .*100%.*state the one it is with --layout"):
        choose_layout("auto", SAMPLES["timm"](), "file")


def test_a_near_fit_is_never_shown_as_whole(monkeypatch):
    weights = {f"blocks.{number}.{name}": torch.zeros(1) for number in range(100)
               for name in [source.removeprefix(f"blocks.{BLOCK}.") for rule in LAYOUTS["timm"].rules
                            for source in rule.sources if BLOCK in source]}
    weights |= {source: torch.zeros(1) for rule in LAYOUTS["timm"].rules for source in rule.sources
                if BLOCK not in source and source != "cls_token"}
    with pytest.raises(WeightImportError, match="timm nearly 100%"):
        choose_layout("auto", weights, "file")


def test_unknown_layout():
    with pytest.raises(WeightImportError, match="'keras' is unknown; known layouts: auto, torchvision, timm"):
        choose_layout("keras", {}, "file")


def test_a_huge_block_number_does_not_make_a_huge_list():
    with pytest.raises(WeightImportError) as caught:
        LAYOUTS["timm"].translate({"blocks.9999.norm1.weight": torch.zeros(1)}, "file")
    assert len(str(caught.value)) < 3000


def test_two_spellings_of_one_weight_are_refused():
    weights = SAMPLES["hugging_face"]()
    weights["embeddings.cls_token"] = weights["vit.embeddings.cls_token"]
    with pytest.raises(WeightImportError, match=r"1 unused: vit\.embeddings\.cls_token"):
        choose_layout("hugging_face", weights, "file").translate(weights, "file")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_rules_name_each_weight_once(layout: Layout):
    rules = layout.expanded(3)
    targets = [rule.target for rule in rules]
    sources = [source for rule in rules for source in rule.sources]
    assert len(targets) == len(set(targets))
    assert len(sources) == len(set(sources))
    assert all(bool(rule.sources) is not rule.zeros for rule in rules)
    assert not any(layout.why_left_out(source) for source in sources)
