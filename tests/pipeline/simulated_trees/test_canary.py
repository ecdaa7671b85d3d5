"""A simulator that draws or renders otherwise has another `FORMAT`: trees of two simulators never mix."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pipeline.simulated_trees import rendered_canary

REMEDY = ("the simulator makes other {what} than the kept canary: raise FORMAT in pipeline/simulated_trees/domains.py "
          "and pipeline/simulated_sessions/plan.py if that is meant, then run "
          "`python -m tests.pipeline.simulated_trees.rendered_canary --update`")


def test_what_is_drawn_is_what_this_format_draws():
    kept = rendered_canary.kept()
    assert str(kept["formats"]) == rendered_canary.FORMATS, REMEDY.format(what="trees (FORMAT)")
    differing = [name for name, value in rendered_canary.drawn().items() if str(kept[name]) != value]
    assert not differing, REMEDY.format(what=", ".join(differing))


def test_what_is_rendered_is_what_this_format_renders():
    differing = rendered_canary.pixel_differences(rendered_canary.kept(), rendered_canary.rendered())
    assert not differing, REMEDY.format(what="pixels") + "\n" + "\n".join(differing)


def test_the_canary_notices_another_share_of_surroundings(monkeypatch: pytest.MonkeyPatch):
    from capture.simulated import surroundings
    shares = surroundings.NEARBY_SHARES
    other = dict(zip(shares, np.roll(list(shares.values()), 1), strict=True))
    monkeypatch.setattr(surroundings, "NEARBY_SHARES", other)
    assert rendered_canary.drawn()["surroundings"] != str(rendered_canary.kept()["surroundings"])


def test_the_canary_notices_other_pixels():
    kept = rendered_canary.kept()
    thumbnails = {name: cells for name, cells in kept.items() if "/" in name}
    assert len(thumbnails) >= 4 * 35
    assert not rendered_canary.pixel_differences(kept, thumbnails)
    name = next(name for name in thumbnails if name.endswith("infrared"))
    brighter = {**thumbnails, name: np.asarray(thumbnails[name] * np.float16(1.1) + np.float16(1))}
    assert [each.split(":")[0] for each in rendered_canary.pixel_differences(kept, brighter)] == [name]
