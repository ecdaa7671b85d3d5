"""Model configurations: presets, limits, strict reading."""

import pytest

from mmdg_model.config import ConfigError, ModelConfig, UncertaintyStatistic


@pytest.mark.parametrize("config", [ModelConfig.base(), ModelConfig.tiny(),
                                    ModelConfig(uncertainty_statistic=UncertaintyStatistic.VARIANCE)])
def test_dictionary_round_trip(config):
    values = config.to_dict()
    assert all(type(value) in (int, float, str) for value in values.values())
    assert ModelConfig.from_dict(values) == config


def test_presets_differ_in_width_only():
    base, tiny = ModelConfig.base().to_dict(), ModelConfig.tiny().to_dict()
    assert {key for key in base if base[key] != tiny[key]} == {"width", "heads"}
    assert (ModelConfig.base().grid, ModelConfig.base().num_tokens) == (14, 197)


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"width": 0}, "model.width is 0"),
    ({"width": 770}, "model.width is 770, expected a multiple of model.heads = 12"),
    ({"adapter_heads": 3}, "model.adapter_width is 8, expected a multiple of model.adapter_heads = 3"),
    ({"image_size": 225}, "model.image_size is 225"),
    ({"cdc_theta": 1.5}, "model.cdc_theta is 1.5"),
    ({"adapter_dropout": float("nan")}, "model.adapter_dropout is nan"),
    ({"uncertainty_dropout": 1.0}, "model.uncertainty_dropout is 1.0"),
    ({"uncertainty_dropout": 0.0}, "model.uncertainty_dropout is 0.0"),
    ({"uncertainty_rate": float("nan")}, "model.uncertainty_rate is nan"),
    ({"uncertainty_rate": float("inf")}, "model.uncertainty_rate is inf"),
])
def test_impossible_values_are_refused(changes, quoted):
    with pytest.raises(ConfigError, match=quoted.replace(".", r"\.")):
        ModelConfig(**changes)


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"widht": 3}, "model.widht = 3 is an unknown key"),
    ({"width": "768"}, "model.width is '768', expected int"),
    ({"width": 768.0}, "model.width is 768.0, expected int"),
    ({"depth": True}, "model.depth is True, expected int"),
    ({"cdc_theta": "0.5"}, "model.cdc_theta is '0.5', expected float"),
    ({"uncertainty_statistic": "entropy"}, "model.uncertainty_statistic is 'entropy', expected one of"),
    ({"uncertainty_reduction": None}, "model.uncertainty_reduction is None"),
])
def test_reading_is_strict(changes, quoted):
    with pytest.raises(ConfigError, match=quoted.replace(".", r"\.")):
        ModelConfig.from_dict(ModelConfig().to_dict() | changes)


@pytest.mark.parametrize("key", list(ModelConfig().to_dict()))
def test_every_key_is_required(key):
    values = ModelConfig().to_dict()
    del values[key]
    with pytest.raises(ConfigError, match=f"model.{key} is missing"):
        ModelConfig.from_dict(values)
