"""CLIP models of other makers, built at random: OpenAI's own file and Hugging Face's. Each raises where it is absent.

`clip-anytorch` carries OpenAI's model file, which needs torch only. It is read past the package's root, which wants
torchvision.
"""

import importlib.metadata
import importlib.util

import torch

from tests.mmdg_model.mmdg_plus_plus.reference_clip import ReferenceClip, roughened


def reference_clip(image, text):
    return roughened(ReferenceClip(image, text))


def openai_file(name):
    """A module of OpenAI's CLIP by itself."""
    try:
        file = importlib.metadata.distribution("clip-anytorch").locate_file(f"clip/{name}.py")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError("clip-anytorch, which carries OpenAI's files, is not installed") from error
    specification = importlib.util.spec_from_file_location(f"openai_clip_{name}", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def openai_clip(image, text):
    return roughened(openai_file("model").CLIP(
        image.feature_width, image.image_size, image.depth, image.width, image.patch_size, text.context_length,
        text.vocabulary_size, text.width, text.heads, text.depth))


class HuggingFaceClip:
    """transformers' two towers under OpenAI's names."""

    def __init__(self, image, text):
        import transformers
        self.vision = roughened(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
            hidden_size=image.width, intermediate_size=4 * image.width, num_hidden_layers=image.depth,
            num_attention_heads=image.heads, image_size=image.image_size, patch_size=image.patch_size,
            projection_dim=image.feature_width)))
        self.text = roughened(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(
            vocab_size=text.vocabulary_size, hidden_size=text.width, intermediate_size=4 * text.width,
            num_hidden_layers=text.depth, num_attention_heads=text.heads, projection_dim=text.feature_width,
            max_position_embeddings=text.context_length, eos_token_id=text.vocabulary_size - 1, pad_token_id=0,
            bos_token_id=1)))
        self.logit_scale = torch.tensor(3.0)

    def encode_image(self, image):
        return self.vision(pixel_values=image).image_embeds

    def encode_text(self, ids):
        return self.text(input_ids=ids).text_embeds

    def state_dict(self):
        return {"logit_scale": self.logit_scale, **as_openai(self.vision.state_dict(), "visual."),
                **as_openai(self.text.state_dict(), "")}


def as_openai(weights, prefix):
    """Hugging Face's names to OpenAI's; query, key and value joined; projections transposed."""
    plain, joint = {}, {}
    names = {"embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
             "embeddings.token_embedding.weight": "token_embedding.weight", "visual_projection.weight": "proj",
             "embeddings.position_embedding.weight": "positional_embedding",
             "text_projection.weight": "text_projection"}
    parts = (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"), ("final_layer_norm", "ln_final"),
             ("encoder.layers", "transformer.resblocks"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
             ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"))
    for name, weight in weights.items():
        if name.endswith("position_ids"):
            continue
        bare = name.removeprefix("vision_model.").removeprefix("text_model.")
        for theirs, openais in parts:
            bare = bare.replace(theirs, openais)
        if "self_attn" in bare:
            block, which = bare.split(".self_attn.")
            joint.setdefault(f"{prefix}{block}.attn.in_proj_{which.split('.')[1]}", {})[which[0]] = weight
        else:
            plain[prefix + names.get(bare, bare)] = weight.T if bare.endswith("projection.weight") else weight
    return plain | {name: torch.cat([three[which] for which in "qkv"]) for name, three in joint.items()}


def embeddings(clip):
    """The weights from which tokens are made, to be changed in place."""
    if isinstance(clip, HuggingFaceClip):
        weights = {**clip.vision.state_dict(), **{f"text.{k}": v for k, v in clip.text.state_dict().items()}}
        return [weight for name, weight in weights.items() if ".embeddings." in name and weight.is_floating_point()]
    return [clip.visual.conv1.weight, clip.visual.class_embedding, clip.visual.positional_embedding,
            clip.token_embedding.weight, clip.positional_embedding]


MAKERS = {"reference": reference_clip, "openai": openai_clip, "hugging_face": HuggingFaceClip}
