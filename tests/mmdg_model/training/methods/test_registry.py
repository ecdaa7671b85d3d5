"""Rows and their settings: strict, and each row is itself."""

import msgspec
import pytest

from mmdg_model.training.methods.registry import METHODS, MethodError, entry, resolve_settings
from mmdg_model.training.regrad import ReGradCases, ReGradTarget


def test_the_tables_of_the_paper_have_their_rows():
    assert {"mmdg", "u_adapter_ssp", "u_adapter", "mmdg_conflicted_only", "mmdg_unconflicted_only",
            "mmdg_without_certainty", "mmdg_certainty_in_regrad_only", "mmdg_certainty_in_adapter_only", "vit_early",
            "vit_late", "vit_late_regrad", "vitaf"} <= set(METHODS)
    assert {f"{method}{trunk}" for method in ("ssdg", "ssan", "iadg") for trunk in ("", "_vit", "_u_adapter")} <= set(
        METHODS)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_row_describes_itself_and_has_defaults(name):
    row = entry(name)
    assert row.name == name
    assert all(text.strip() and "\n" not in text for text in (row.title, row.summary, row.source))
    settings = resolve_settings(name, {})
    assert type(settings) is row.settings
    assert {key: getattr(settings, key) for key in row.fixed} == dict(row.fixed)
    assert resolve_settings(name, msgspec.to_builtins(settings)) == settings  # what a run records reads back


def test_plain_values_become_typed_ones():
    settings = resolve_settings("mmdg", {"regrad_target": "both", "ssp_weight": 1})
    assert settings.regrad_target is ReGradTarget.BOTH
    assert settings.ssp_weight == 1.0
    assert resolve_settings("u_adapter", {"regrad_cases": "off"}).regrad_cases is ReGradCases.OFF


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("mmgd", {}, "no method 'mmgd'; there are mmdg, u_adapter_ssp"),
    ("mmdg", {"lambda": 0.3}, "settings.lambda is unknown; known: ssp_weight, regrad_target"),
    ("vit_early", {"regrad": True}, "settings.regrad is unknown; known: none"),
    ("u_adapter", {"ssp_weight": 0.3}, "settings.ssp_weight is 0.3, but this row is 0.0 by definition"),
    ("vit_late_regrad", {"regrad": False}, "this row is True by definition"),
    ("mmdg", {"ssp_weight": -1.0}, "ssp_weight is -1.0"),
    ("mmdg", {"ssp_weight": "much"}, r"Expected `float`, got `str` - at `\$\.ssp_weight`"),
    ("mmdg", {"regrad_target": "cross"}, r"Invalid enum value 'cross' - at `\$\.regrad_target`"),
    ("mmdg", {"prototype_batch_share": 0.0}, "batch_share is 0.0"),
    ("vit_late", {"ssp_weight": -0.5}, "ssp_weight is -0.5"),
])
def test_what_a_row_does_not_have_is_refused_with_its_place(name, settings, message):
    with pytest.raises(MethodError, match=message):
        resolve_settings(name, settings)
