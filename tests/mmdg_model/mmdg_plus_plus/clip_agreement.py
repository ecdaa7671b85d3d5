"""Largest differences between our CLIP towers and others' at full ViT-B/16 size, random weights.

    python -m tests.mmdg_model.mmdg_plus_plus.clip_agreement

Needs 4 GB of memory and a minute; makers that are not installed are left out.
"""

import torch
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig
from tests.mmdg_model.mmdg_plus_plus.builders import random_planes
from tests.mmdg_model.mmdg_plus_plus.published_clips import MAKERS
from tests.mmdg_model.mmdg_plus_plus.test_clip_towers import loaded, normalised, random_ids


@torch.no_grad()
def main():
    image, text = MMDGPlusPlusConfig.base(), DomainPromptConfig()
    planes, (ids, ends) = random_planes(2, image), random_ids(text)
    for maker, make in MAKERS.items():
        try:
            clip = make(image, text)
        except ModuleNotFoundError as error:
            print(f"{maker}: {error}")
            continue
        network, tower = loaded(clip, image, text)
        features = network(planes, torch.ones(2, 3, dtype=torch.bool)).class_tokens[:, 0]
        of_image = (features - F.normalize(clip.encode_image(normalised(planes[:, 0])), dim=-1)).abs().max()
        expected = clip.encode_text(ids)
        of_text = (tower(tower.token_embedding(ids), ends) - expected).abs().max() / expected.abs().max()
        print(f"{maker}: image feature (length 1) {of_image:.1e}, text feature {of_text:.1e} of its largest component")


if __name__ == "__main__":
    main()
