"""Configurations of MMDG++: presets, refusals, the stored form."""

import dataclasses

import pytest

from mmdg_model.config import ConfigError
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig, QueryEstimator, QuerySelection


@pytest.mark.parametrize("config", [MMDGPlusPlusConfig.base(), MMDGPlusPlusConfig.release(), MMDGPlusPlusConfig.tiny()])
def test_stored_form_is_plain_and_read_back_equal(config):
    stored = config.to_dict()
    assert {type(value) for value in stored.values()} <= {int, float, str}
    assert MMDGPlusPlusConfig.from_dict(stored) == config


def test_release_differs_from_base_in_its_quirks_only():
    base, release = MMDGPlusPlusConfig.base(), MMDGPlusPlusConfig.release()
    differing = {name for name, value in base.to_dict().items() if release.to_dict()[name] != value}
    assert differing == {"query_estimator", "query_selection"}
    assert (base.query_estimator, base.query_selection) == (QueryEstimator.ANALYTIC, QuerySelection.BY_CERTAINTY)


@pytest.mark.parametrize(("change", "quoted"), [
    ({"width": 0}, r"model\.width is 0, expected an integer of 1 to 4096"),
    ({"image_size": 4096}, r"model\.image_size is 4096, expected an integer of 1 to 1024"),
    ({"heads": 5}, r"model\.width is 768, expected a multiple of model\.heads = 5"),
    ({"adapter_heads": 3}, r"model\.adapter_width is 8, expected a multiple of model\.adapter_heads = 3"),
    ({"patch_size": 15}, r"model\.image_size is 224, expected a multiple of model\.patch_size = 15"),
    ({"query_samples": 1}, r"model\.query_samples is 1, expected an integer of 2 to 1000"),
    ({"cdc_theta": 1.5}, r"model\.cdc_theta is 1\.5, expected 0 to 1"),
    ({"cdc_theta": float("nan")}, r"model\.cdc_theta is nan"),
    ({"uncertainty_rate": 0.0}, r"model\.uncertainty_rate is 0\.0, expected a positive number"),
    ({"layer_norm_eps": float("inf")}, r"model\.layer_norm_eps is inf"),
    ({"sampling_seed": -1}, r"model\.sampling_seed is -1"),
])
def test_impossible_networks_are_refused(change, quoted):
    with pytest.raises(ConfigError, match=quoted):
        dataclasses.replace(MMDGPlusPlusConfig(), **change)


@pytest.mark.parametrize(("change", "quoted"), [
    ({"heads": 7}, r"prompts\.width is 512, expected a multiple of prompts\.heads = 7"),
    ({"live_domain": 5}, r"prompts\.live_domain is 5, expected 0 to 4"),
    ({"prompt_tokens": 0}, r"prompts\.prompt_tokens is 0"),
    ({"layer_norm_eps": -1.0}, r"prompts\.layer_norm_eps is -1\.0"),
])
def test_impossible_prompts_are_refused(change, quoted):
    with pytest.raises(ConfigError, match=quoted):
        DomainPromptConfig(**change)


@pytest.mark.parametrize(("change", "quoted"), [
    ({"query_estimator": "guessed"}, r"model\.query_estimator is 'guessed', expected one of analytic, sampled"),
    ({"depth": "12"}, r"model\.depth is '12', expected int"),
    ({"text_width": 512}, r"model\.text_width = 512 is an unknown key"),
])
def test_stored_forms_are_read_strictly(change, quoted):
    with pytest.raises(ConfigError, match=quoted):
        MMDGPlusPlusConfig.from_dict(MMDGPlusPlusConfig().to_dict() | change)
