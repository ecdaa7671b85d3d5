"""Two generations of what a killed run goes on from."""

import pytest
import torch

from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.resume import Position, ResumeFiles, restore, trained_names
from mmdg_model.training.run_directory import RunDirectoryError
from tests.mmdg_model.training.toy_run import ToyData, ToyMethod, context, toy_config


def method(seed=0, updates=2):
    built = ToyMethod(context(SingleProcess(), toy_config(seed=seed), ToyData()))
    built.start_epoch(0, ToyData().clean_batches)
    for parts, _ in zip(ToyData().epoch(0), range(updates), strict=False):
        built.update(parts)
    return built


def tensors(built):
    adam = built.optimisers["all"].state_dict()["state"]
    return [*built.network.state_dict().values(), built.mean, *(adam[index][key] for index in adam
                                                                for key in sorted(adam[index]))]


def frozen(built):
    state = built.network.state_dict()
    return {name: tensor for name, tensor in state.items() if name not in trained_names(built.network)}


def same(first, second):
    return len(tensors(first)) == len(tensors(second)) and all(map(torch.equal, tensors(first), tensors(second)))


def unheard(text):
    raise AssertionError(text)


def test_network_buffers_optimiser_and_the_methods_own_state_come_back(tmp_path):
    saved, fresh = method(updates=2), method(seed=1, updates=1)
    position = Position(epoch=0, updates_in_epoch=2, updates=2, epoch_started=True, metrics_bytes=7, seconds=1.25)
    ResumeFiles(tmp_path, "run").save(position, saved, {"scale": 0.1})
    assert not same(saved, fresh)
    found = ResumeFiles(tmp_path, "run").load(unheard)
    restore(found, fresh, frozen(saved))
    assert same(saved, fresh)
    assert (found.position, found.about.compute) == (position, {"scale": 0.1})
    assert fresh.optimisers["all"].param_groups[0]["lr"] == 1e-2  # stated by the configuration, not by the file


def test_what_trains_is_parameters_with_gradients_and_buffers():
    assert trained_names(method().network) == {"head.weight", "head.bias", "updates"}


def test_an_optimiser_before_its_first_step_has_nothing_to_restore(tmp_path):
    ResumeFiles(tmp_path, "run").save(Position(), method(updates=0), {})
    fresh = method(updates=1)
    restore(ResumeFiles(tmp_path, "run").load(unheard), fresh, frozen(fresh))
    assert fresh.optimisers["all"].state_dict()["state"] == {}


def test_nothing_saved_is_no_error(tmp_path):
    assert ResumeFiles(tmp_path / "none", "run").load(unheard) is None


def test_the_newest_of_two_generations_counts(tmp_path):
    files = ResumeFiles(tmp_path, "run")
    for updates in range(1, 6):
        files.save(Position(updates=updates), method(updates=0), {})
        assert ResumeFiles(tmp_path, "run").load(unheard).position.updates == updates
    assert len(list(tmp_path.iterdir())) == 2
    files.remove()
    assert not tmp_path.exists()


def test_after_loading_the_other_generation_is_written_over(tmp_path):
    first = ResumeFiles(tmp_path, "run")
    for updates in (1, 2):
        first.save(Position(updates=updates), method(updates=0), {})
    second = ResumeFiles(tmp_path, "run")
    second.load(unheard)
    before = (tmp_path / "0.safetensors").read_bytes()
    second.save(Position(updates=3), method(updates=0), {})
    assert (tmp_path / "0.safetensors").read_bytes() == before
    assert ResumeFiles(tmp_path, "run").load(unheard).position.updates == 3


@pytest.mark.parametrize("damage", [lambda blob: blob[:-3], lambda blob: b"", lambda blob: b"nonsense" * 9])
def test_a_damaged_generation_is_told_and_the_other_one_used(tmp_path, damage):
    files = ResumeFiles(tmp_path, "run")
    for updates in (1, 2):
        files.save(Position(updates=updates), method(updates=0), {})
    (tmp_path / "0.safetensors").write_bytes(damage((tmp_path / "0.safetensors").read_bytes()))
    told = []
    assert ResumeFiles(tmp_path, "run").load(told.append).position.updates == 1
    assert "0.safetensors" in told[0]
    (tmp_path / "1.safetensors").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="nothing whole is left"):
        ResumeFiles(tmp_path, "run").load(told.append)


def test_the_state_of_another_run_is_refused(tmp_path):
    ResumeFiles(tmp_path, "one").save(Position(), method(updates=0), {})
    with pytest.raises(RunDirectoryError, match="is of the run one, this is two"):
        ResumeFiles(tmp_path, "two").load(unheard)


def test_a_state_that_does_not_fit_the_method_is_refused(tmp_path):
    saved = method()
    ResumeFiles(tmp_path, "run").save(Position(), saved, {})
    found = ResumeFiles(tmp_path, "run").load(unheard)
    with pytest.raises(RunDirectoryError, match="does not fit the method"):
        restore(found, method(), {})  # the frozen tensors are missing
    other = method()
    other.optimisers = {"another": other.optimisers["all"]}
    with pytest.raises(RunDirectoryError, match="optimisers"):
        restore(found, other, frozen(saved))
