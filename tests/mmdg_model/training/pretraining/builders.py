"""A toy run: a two-block ViT on 32 x 32 pixels, 16 patches, and a tree of all four data sets' layouts."""

from mmdg_model.training.pretraining.config import DecoderConfig, PretrainingConfig
from mmdg_model.training.pretraining.crops import UnlabelledCrops, crop_specification, read_crop_lists
from mmdg_model.training.run_config import ModelChoice, OptimiserConfig
from tests.mmdg_model.training.trees import small_tree

TOY = ModelChoice(preset="micro", changes={"width": 48, "heads": 3, "depth": 2, "image_size": 32, "patch_size": 8})


def toy_config(**changes):
    return PretrainingConfig(**{"model": TOY, "decoder": DecoderConfig(width=24, depth=1, heads=3), "epochs": 3,
                                "batch_size": 8, "precision": "32-true", "optimiser": OptimiserConfig(
                                    name="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_updates=2,
                                    final_rate_share=0.0)} | changes)


def toy_crops(root, domains=("C", "P", "S", "W")):
    lists = read_crop_lists(root, small_tree(root), domains)
    specification = crop_specification(32)
    return UnlabelledCrops(lists.train, specification), UnlabelledCrops(lists.validation, specification), lists
