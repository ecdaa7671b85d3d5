"""Asymmetric domain prompts: text features with learnable tokens, against which each modality's domain is classified.

All live faces share one domain; attacks have one for each data set. Training only: the score needs no text.

Legend: b batch, m modalities, c classes (`CLASSES`), s sentences of a class, p prompt tokens of a domain, t tokens of a
sentence, q domains, d width of the text tower, e width of the joint space.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.clip_towers import ClipTextTower, build_text_tower
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, PlaceholderSearch
from mmdg_model.mmdg_plus_plus.prompt_sentences import PLACEHOLDER, FaceClass, sentences, template
from mmdg_model.network import MODALITIES

#: Order of the class axis.
CLASSES: tuple[FaceClass, ...] = (FaceClass.SPOOF, FaceClass.LIVE)


class TextEncoder(Protocol):
    """What prompts need of a tokenizer; `tokenizer.ClipTokenizer` is one."""

    start_of_text: int
    end_of_text: int

    def encode(self, text: str) -> list[int]:
        """Token ids, without start and end."""
        ...


class PromptError(ValueError):
    """A sentence cannot carry its learnable tokens; the message quotes it."""


class PromptTokens(NamedTuple):
    """The tokenised sentences of every modality and class.

    Attributes:
        ids: `int64 [m, c, s, t]`, start and end included, 0 after the end; t is the longest sentence's length.
        placeholders: `int64 [m, c, s, p]`, where the learnable tokens go.
        ends: `int64 [m, c, s]`, place of the end token.
    """

    ids: Tensor
    placeholders: Tensor
    ends: Tensor


def tokenise_prompts(config: DomainPromptConfig, tokenizer: TextEncoder) -> PromptTokens:
    """Tokenises all sentences and finds their placeholders.

    Raises:
        PromptError: a sentence longer than the context, or whose placeholders are not found.
    """
    rows = [_tokenise(template(sentence, config.prompt_tokens), config, tokenizer)
            for modality in MODALITIES for face_class in CLASSES for sentence in sentences(modality, face_class)]
    longest = max(len(ids) for ids, _ in rows)
    shape = (len(MODALITIES), len(CLASSES), -1)
    return PromptTokens(
        ids=torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]).reshape(*shape, longest),
        placeholders=torch.tensor([places for _, places in rows]).reshape(*shape, config.prompt_tokens),
        ends=torch.tensor([len(ids) - 1 for ids, _ in rows]).reshape(shape))


def _tokenise(text: str, config: DomainPromptConfig, tokenizer: TextEncoder) -> tuple[list[int], list[int]]:
    ids = [tokenizer.start_of_text, *tokenizer.encode(text), tokenizer.end_of_text]
    if len(ids) > config.context_length:
        raise PromptError(f"prompt {text!r} has {len(ids)} tokens, the text tower takes {config.context_length}: "
                          "shorten it")
    if config.placeholder_search is PlaceholderSearch.TOKEN_ID:
        return ids, _places_by_token_id(text, ids, config, tokenizer)
    return ids, _places_by_words(text, config)


def _places_by_token_id(text: str, ids: list[int], config: DomainPromptConfig, tokenizer: TextEncoder) -> list[int]:
    placeholder = tokenizer.encode(PLACEHOLDER)
    places = [place for place, token in enumerate(ids) if [token] == placeholder]
    if len(places) != config.prompt_tokens:
        raise PromptError(f"prompt {text!r} has {len(places)} tokens of {PLACEHOLDER!r} ({placeholder}), expected "
                          f"{config.prompt_tokens}: the word must be one token and stand nowhere else")
    return places


def _places_by_words(text: str, config: DomainPromptConfig) -> list[int]:
    """As the release does: the start token and one token a word come first. Kept to reproduce, not to use."""
    before = 1 + len(text.split()) - config.prompt_tokens
    return list(range(before, before + config.prompt_tokens))


def misplaced_templates(config: DomainPromptConfig, tokenizer: TextEncoder) -> list[str]:
    """The templates in which counting words finds other tokens than the placeholders."""
    templates = [template(sentence, config.prompt_tokens)
                 for modality in MODALITIES for face_class in CLASSES for sentence in sentences(modality, face_class)]
    return [text for text in templates
            if _places_by_words(text, config) != _places_by_token_id(
                text, [tokenizer.start_of_text, *tokenizer.encode(text), tokenizer.end_of_text], config, tokenizer)]


class DomainPrompts(nn.Module):
    """Learnable tokens for each modality and domain, the frozen text tower that reads them, and the comparison.

    Built by `build_domain_prompts`.

    Args:
        config: the numbers of the tower.
        tower: frozen.
        tokens: of the sentences.

    Attributes:
        prompts: by modality, `[q, p, d]`, drawn from N(0, 1).
    """

    ids: Tensor
    placeholders: Tensor
    ends: Tensor

    def __init__(self, config: DomainPromptConfig, *, tower: ClipTextTower, tokens: PromptTokens) -> None:
        super().__init__()
        self.config = config
        self.tower = tower
        shape = (config.num_domains, config.prompt_tokens, config.width)
        self.prompts = nn.ParameterDict({str(modality): nn.Parameter(torch.randn(shape)) for modality in MODALITIES})
        for name, values in tokens._asdict().items():
            self.register_buffer(name, values, persistent=False)  # the sentences are code, not weights

    def forward(self, features_BME: Tensor, *, unseen_domains: Collection[int] = ()) -> Tensor:
        """Logits of each modality's domain.

        Args:
            features_BME: of length 1, or 0 for an absent modality, whose logits are then 0: leave it out of the loss.
            unseen_domains: rows without a training sample, such as the target's; their logits are -inf, so that they
                are no negatives. The release keeps them.

        Returns:
            `[b, m, q]`: temperature times the cosine of image and text.
        """
        texts_MQE = F.normalize(self.text_features(), dim=-1)
        logits_BMQ = self.tower.logit_scale.exp() * torch.einsum("bme,mqe->bmq", features_BME, texts_MQE)
        if not unseen_domains:
            return logits_BMQ
        unseen_Q = torch.zeros(self.config.num_domains, dtype=torch.bool, device=logits_BMQ.device)
        unseen_Q[list(unseen_domains)] = True
        return logits_BMQ.masked_fill(unseen_Q, float("-inf"))

    def text_features(self) -> Tensor:
        """Mean feature of a domain's sentences for each modality: `[m, q, e]`, not normalised."""
        # One pass through the tower for each modality, whose loss then goes back through its own alone.
        return torch.stack([self._modality_features(index) for index in range(len(MODALITIES))])

    def _modality_features(self, modality: int) -> Tensor:
        """`[q, e]`: sentences of each domain's class, with its prompts in their places, through the tower."""
        of_domain = [CLASSES.index(FaceClass.LIVE if domain == self.config.live_domain else FaceClass.SPOOF)
                     for domain in range(self.config.num_domains)]
        embedded_QSTD = self.tower.token_embedding(self.ids[modality, of_domain])
        places_QSPD = self.placeholders[modality, of_domain][..., None].expand(-1, -1, -1, self.config.width)
        prompts_Q1PD = self.prompts[MODALITIES[modality]][:, None]
        filled_QSTD = embedded_QSTD.scatter(2, places_QSPD, prompts_Q1PD.expand_as(places_QSPD))
        features_NE: Tensor = self.tower(filled_QSTD.flatten(0, 1), self.ends[modality, of_domain].flatten())
        return features_NE.reshape(*filled_QSTD.shape[:2], -1).mean(dim=1)


def build_domain_prompts(config: DomainPromptConfig, tokenizer: TextEncoder) -> DomainPrompts:
    """Fresh prompts before a random frozen text tower. Draws from torch's global generator.

    Raises:
        PromptError: see `tokenise_prompts`.
    """
    return DomainPrompts(config, tower=build_text_tower(config), tokens=tokenise_prompts(config, tokenizer))
