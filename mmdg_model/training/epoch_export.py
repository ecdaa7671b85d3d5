"""An epoch of a run becomes a checkpoint that live scorers load. Needs the run's directory alone."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmdg_model.architectures import build, config_from_dict
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.inputs import DepthEncoding, InputSpecification
from mmdg_model.scorer import Purpose
from mmdg_model.torch_scorer import measure_known_answer
from mmdg_model.training.environment import program
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError


def export_epoch(directory: RunDirectory, epoch: int) -> Checkpoint:
    """The network after an epoch, with its purpose, provenance and a measured known answer; not yet saved.

    Depth: real data sets hold 8-bit levels whose metres nobody knows, so a checkpoint trained on them keeps
    `identity_8bit` and refuses metric crops. A simulated tree states how its levels were made of metres; the
    checkpoint then takes metric crops and makes the same levels of them.

    Raises:
        RunDirectoryError: no such epoch, a damaged one, or a method whose network live scorers do not know.
    """
    about = directory.read_json(directory.environment_file)
    config = directory.config()
    if epoch not in directory.epochs():
        raise RunDirectoryError(f"{directory.path} keeps no epoch {epoch}; it keeps "
                                f"{', '.join(map(str, directory.epochs())) or 'none'}")
    if config.inputs.withheld:
        raise RunDirectoryError(f"{directory.path} was trained without {', '.join(sorted(config.inputs.withheld))} to "
                                "see what the others can do; a live scorer would feed it all three: train with all")
    try:
        network_about, data = about["network"], about["data"]
        if network_about is None:
            raise RunDirectoryError(f"method {config.method} trains a network that live scorers do not know; export a "
                                    "run of an MMDG method")
        shape = config_from_dict(network_about["architecture"], network_about["model"])
        specification = live_specification(InputSpecification.from_dict(data["inputs"]), data["levels_written_as"])
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(f"{directory.environment_file}: {error!r} is missing; the file was altered: put it "
                                "back") from error
    state, model_hash = directory.load_epoch(epoch)
    network = build(shape)
    network.load_state_dict(state)
    network.eval()
    return Checkpoint(
        config=shape, input_spec=specification, purpose=Purpose.SIMULATED if data["simulated"] else Purpose.RELEASE,
        weights=dict(network.state_dict()), known_answer=measure_known_answer(network, specification),
        created_by=program(),
        training={"run": config.hash, "epoch": epoch, "model_hash": model_hash, "method": config.method,
                  "settings": dict(config.settings), "protocol": config.protocol, "sources": data["sources"],
                  "seed": config.seed, "data": data["fingerprint"], "simulated": data["simulated"],
                  "backbone": about["backbone"], "trained_by": about["starts"][-1]["program"]})


def live_specification(trained: InputSpecification, levels_written_as: dict[str, Any] | None) -> InputSpecification:
    """What a live scorer must do so that the network sees what it was trained on.

    Args:
        trained: of the run.
        levels_written_as: the specification by which a simulated tree's depth levels were made; None where unknown.
    """
    if levels_written_as is None or trained.depth_encoding is not DepthEncoding.IDENTITY_8BIT:
        return trained
    written = InputSpecification(
        depth_near_m=levels_written_as.get("depth_near_m", trained.depth_near_m),
        depth_range_m=levels_written_as.get("depth_range_m", trained.depth_range_m))
    return dataclasses.replace(trained, depth_encoding=DepthEncoding.METRIC_8BIT, depth_near_m=written.depth_near_m,
                               depth_range_m=written.depth_range_m)
