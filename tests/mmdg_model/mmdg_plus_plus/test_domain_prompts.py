"""Domain prompts: where learnable tokens go, who shares them, what they learn from; CLIP's tokenizer if installed."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.clip_towers import build_text_tower
from mmdg_model.mmdg_plus_plus.clip_weights import load_clip_text_side
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig, PlaceholderSearch
from mmdg_model.mmdg_plus_plus.domain_prompts import (
    CLASSES,
    DomainPrompts,
    PromptError,
    build_domain_prompts,
    misplaced_templates,
    tokenise_prompts,
)
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus, parameter_owner
from mmdg_model.mmdg_plus_plus.prompt_sentences import DEPLOYMENT, PLACEHOLDER, FaceClass, sentences
from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from tests.mmdg_model.mmdg_plus_plus.builders import MICRO_PROMPTS, WordTokenizer
from tests.mmdg_model.mmdg_plus_plus.reference_clip import ReferenceClip, roughened

LIVE = MICRO_PROMPTS.live_domain
BY_WORDS = dataclasses.replace(MICRO_PROMPTS, placeholder_search=PlaceholderSearch.WHITESPACE_WORDS)


@pytest.fixture(scope="module")
def clip_tokenizer():
    pytest.importorskip("instant_clip_tokenizer", reason="CLIP's tokenizer (extra plusplus) is not installed")
    from mmdg_model.mmdg_plus_plus.tokenizer import ClipTokenizer
    return ClipTokenizer()


def lively_prompts(config=MICRO_PROMPTS, seed=0):
    torch.manual_seed(seed)
    prompts = build_domain_prompts(config, WordTokenizer())
    roughened(prompts.tower, seed)
    return prompts


def unit_features(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, 3, MICRO_PROMPTS.feature_width, generator=generator), dim=-1)


def test_nine_sentences_of_each_class_and_modality_none_twice():
    said = [sentence for modality in Modality for face_class in FaceClass
            for sentence in sentences(modality, face_class)]
    assert len(said) == len(set(said)) == 54
    assert all(len(sentences(modality, face_class)) == 9 for modality in Modality for face_class in FaceClass)
    assert not any("{" in sentence or PLACEHOLDER in sentence.split() for sentence in said)


def test_every_sentence_names_its_sensor_or_image():
    words = {Modality.RGB: ("rgb", "colour"), Modality.DEPTH: ("depth",), Modality.INFRARED: ("infrared",)}
    for modality in Modality:
        for face_class in FaceClass:
            for sentence in sentences(modality, face_class):
                named = {other for other in Modality if any(word in sentence.split() for word in words[other])}
                assert named == {modality}, sentence


def test_trainable_parameters_of_the_published_size():
    with torch.device("meta"):
        network = build_mmdg_plus_plus(MMDGPlusPlusConfig.base())
        prompts = DomainPrompts(DomainPromptConfig(), tower=build_text_tower(DomainPromptConfig()),
                                tokens=tokenise_prompts(DomainPromptConfig(), WordTokenizer()))
    trainable = [sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
                 for part in (network, prompts)]
    assert trainable[1] == 3 * 5 * 5 * 512 == 38_400
    assert sum(trainable) == 2_414_594


def test_prompts_start_standard_normal():
    torch.manual_seed(0)
    prompts = build_domain_prompts(dataclasses.replace(MICRO_PROMPTS, width=512), WordTokenizer())
    values = torch.cat([values.detach().flatten() for values in prompts.prompts.values()])
    assert values.mean().item() == pytest.approx(0.0, abs=0.02)
    assert values.std().item() == pytest.approx(1.0, abs=0.02)


def check_places(tokens, config, tokenizer):
    placeholder = tokenizer.encode(PLACEHOLDER)[0]
    assert tokens.ids.shape[:3] == tokens.ends.shape == (3, 2, 9)
    assert tokens.placeholders.shape == (3, 2, 9, config.prompt_tokens)
    assert (tokens.ids.gather(-1, tokens.placeholders) == placeholder).all()
    assert ((tokens.ids == placeholder).sum(dim=-1) == config.prompt_tokens).all()
    # They are the last words: the end token follows.
    assert (tokens.placeholders[..., -1] + 1 == tokens.ends).all()
    assert (tokens.ids.gather(-1, tokens.ends[..., None]) == tokenizer.end_of_text).all()
    assert (tokens.ids[..., 0] == tokenizer.start_of_text).all()


def test_placeholders_are_found_by_their_id():
    tokenizer = WordTokenizer()
    check_places(tokenise_prompts(MICRO_PROMPTS, tokenizer), MICRO_PROMPTS, tokenizer)


def test_clip_tokenizer_places(clip_tokenizer):
    config = DomainPromptConfig()
    tokens = tokenise_prompts(config, clip_tokenizer)
    check_places(tokens, config, clip_tokenizer)
    assert tokens.ids.shape[-1] == 23 <= config.context_length


def test_counting_words_misplaces_prompts_of_every_sentence_with_a_split_word(clip_tokenizer):
    """The released search, on our sentences: half of them are wrong. (Of the release's own, 42 of 54.)"""
    config = DomainPromptConfig()
    wrong = misplaced_templates(config, clip_tokenizer)
    assert len(wrong) == 27
    split = [word for word in {word for text in wrong for word in text.split()} if len(clip_tokenizer.encode(word)) > 1]
    assert {"spoof", "modality", "bonafide"} <= set(split)
    assert all(set(text.split()) & set(split) for text in wrong)
    by_words = tokenise_prompts(dataclasses.replace(config, placeholder_search=PlaceholderSearch.WHITESPACE_WORDS),
                                clip_tokenizer)
    by_id = tokenise_prompts(config, clip_tokenizer)
    assert (by_words.placeholders != by_id.placeholders).any(dim=-1).sum() == 27
    assert ((by_id.placeholders - by_words.placeholders)[..., 0] >= 0).all()  # it overwrites words before them


def test_counting_words_is_right_only_where_no_word_is_split():
    tokenizer = WordTokenizer()
    wrong = misplaced_templates(MICRO_PROMPTS, tokenizer)
    assert wrong
    assert set(wrong) == {f"{sentence} {DEPLOYMENT} x x x x x" for modality in Modality for face_class in FaceClass
                          for sentence in sentences(modality, face_class)
                          if set(sentence.split()) & set(WordTokenizer.SPLIT)}


class SplitPlaceholder(WordTokenizer):
    SPLIT = (PLACEHOLDER,)


class PlaceholderEverywhere(WordTokenizer):
    def encode(self, text):
        return [0 if word in ("face", PLACEHOLDER) else 1 for word in text.split()]


@pytest.mark.parametrize(("tokenizer", "config", "quoted"), [
    (SplitPlaceholder(), MICRO_PROMPTS, "has 0 tokens of 'x'"),
    (PlaceholderEverywhere(), MICRO_PROMPTS, "has 6 tokens of 'x'"),
    (WordTokenizer(), dataclasses.replace(MICRO_PROMPTS, context_length=16), "tokens, the text tower takes 16"),
])
def test_sentences_that_cannot_carry_prompts_are_refused(tokenizer, config, quoted):
    with pytest.raises(PromptError, match=quoted):
        tokenise_prompts(config, tokenizer)


@torch.no_grad()
def test_text_features_equal_a_plain_loop_over_sentences():
    prompts = lively_prompts()
    for index, modality in enumerate(MODALITIES):
        for domain in range(MICRO_PROMPTS.num_domains):
            face_class = FaceClass.LIVE if domain == LIVE else FaceClass.SPOOF
            features = []
            for which in range(9):
                row = CLASSES.index(face_class)
                ids = prompts.ids[index, row, which][:int(prompts.ends[index, row, which]) + 1]
                embedded = prompts.tower.token_embedding(ids).clone()
                embedded[-6:-1] = prompts.prompts[modality][domain]
                features.append(prompts.tower(embedded[None], torch.tensor([len(ids) - 1]))[0])
            torch.testing.assert_close(prompts.text_features()[index, domain], torch.stack(features).mean(dim=0),
                                       atol=1e-5, rtol=1e-4)


def test_domains_of_attacks_share_their_words_and_the_live_one_has_its_own():
    """With equal prompts, all attack domains coincide and the live one differs."""
    prompts = lively_prompts()
    with torch.no_grad():
        for values in prompts.prompts.values():
            values.copy_(values[:1].expand_as(values))
        features = prompts.text_features()
    attacks = [domain for domain in range(MICRO_PROMPTS.num_domains) if domain != LIVE]
    for domain in attacks:
        torch.testing.assert_close(features[:, domain], features[:, attacks[0]], atol=1e-6, rtol=1e-6)
    assert ((features[:, LIVE] - features[:, attacks[0]]).abs().amax(dim=-1) > 1e-2).all()


@pytest.mark.parametrize("domain", range(MICRO_PROMPTS.num_domains))
def test_a_domain_and_modality_teach_their_own_prompts_only(domain):
    prompts = lively_prompts()
    prompts.text_features()[MODALITIES.index(Modality.DEPTH), domain].sum().backward()
    for modality in Modality:
        gradient = prompts.prompts[modality].grad
        learns = torch.zeros(MICRO_PROMPTS.num_domains, dtype=torch.bool) if gradient is None else gradient.flatten(
            1).any(dim=1)
        expected = torch.arange(MICRO_PROMPTS.num_domains) == (domain if modality is Modality.DEPTH else -1)
        assert torch.equal(learns, expected)
    assert all(parameter.grad is None for parameter in prompts.tower.parameters())


@torch.no_grad()
def test_misplaced_prompts_give_other_features():
    right, wrong = lively_prompts(), lively_prompts(BY_WORDS)
    assert all(torch.equal(right.prompts[modality], wrong.prompts[modality]) for modality in Modality)
    assert (right.text_features() - wrong.text_features()).abs().max() > 1e-2


@torch.no_grad()
def test_logits_are_scaled_cosines():
    prompts, features = lively_prompts(), unit_features()
    logits = prompts(features)
    texts = prompts.text_features()
    for index in range(3):
        for domain in range(MICRO_PROMPTS.num_domains):
            cosine = F.cosine_similarity(features[:, index], texts[index, domain][None])
            torch.testing.assert_close(logits[:, index, domain], cosine / 0.07, atol=1e-4, rtol=1e-4)
    features[:, 1] = 0  # an absent modality
    assert not prompts(features)[:, 1].any()


def test_an_unseen_domain_is_no_negative():
    prompts, features = lively_prompts(), unit_features()
    loss = F.cross_entropy(prompts(features, unseen_domains=(3,))[:, 0], torch.tensor([0, 1, 2, 4]))
    loss.backward()
    taught = prompts.prompts["rgb"].grad.flatten(1).any(dim=1)
    assert taught.tolist() == [True, True, True, False, True]
    with torch.no_grad():
        kept = [0, 1, 2, 4]
        expected = F.cross_entropy(prompts(features)[:, 0][:, kept], torch.arange(4))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        released = F.cross_entropy(prompts(features)[:, 0], torch.tensor(kept))
    assert released > loss  # there the target's untrained row takes a share


def test_sentences_are_code_and_not_weights():
    prompts = lively_prompts()
    assert {name for name in prompts.state_dict() if not name.startswith("tower.")} == {
        "prompts.rgb", "prompts.depth", "prompts.infrared"}
    assert parameter_owner("prompts.depth") is Modality.DEPTH
    assert parameter_owner("tower.projection") is None


def test_the_tower_is_the_clip_that_was_loaded():
    image = MMDGPlusPlusConfig(width=48, heads=3, depth=1, image_size=32, feature_width=24)
    clip, prompts = roughened(ReferenceClip(image, MICRO_PROMPTS)), lively_prompts()
    load_clip_text_side(prompts.tower, clip.state_dict())
    with torch.no_grad():
        for values in prompts.prompts.values():
            values.fill_(1.0)
        first = prompts.ids[0, 0]
        embedded = clip.token_embedding(first).scatter(
            1, prompts.placeholders[0, 0][:, :, None].expand(-1, -1, MICRO_PROMPTS.width),
            torch.ones(9, 5, MICRO_PROMPTS.width))
        mask = torch.full((first.shape[1],) * 2, float("-inf")).triu(1)
        tokens = clip.transformer(embedded + clip.positional_embedding[:first.shape[1]], mask)
        expected = clip.ln_final(tokens)[torch.arange(9), first.argmax(dim=-1)] @ clip.text_projection
        torch.testing.assert_close(prompts.text_features()[0, 0], expected.mean(dim=0), atol=1e-4, rtol=1e-4)
