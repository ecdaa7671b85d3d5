"""A split becomes a score table in the order of its list."""

import dataclasses

import numpy as np
import pytest
import torch

from mmdg_model.training.compute import SingleProcess, TrainingDiverged
from mmdg_model.training.processes import gather_blobs, sum_over_processes
from mmdg_model.training.scores import ScoreContext, ScoreTableError, Split
from mmdg_model.training.scoring import score_split
from tests.mmdg_model.training.toy_run import VALIDATION, ToyData, ToyMethod, context, toy_config

CONTEXT = ScoreContext(split=Split.SOURCE_VALIDATION, protocol="CPS_W", method="toy", seed=0, epoch=3,
                       model_hash="hash", simulated=True)


class MeanScore(ToyMethod):
    """The mean level of the first modality: who has what score is easily told."""

    def score(self, planes, present):
        return planes[:, 0].mean(dim=(1, 2, 3))


@pytest.fixture
def method():
    return MeanScore(context(SingleProcess(), toy_config(), ToyData()))


def scored(method, batches):
    return score_split(method, batches, context=CONTEXT, compute=SingleProcess())


def test_rows_stand_in_the_order_of_the_list_whatever_the_batches(method):
    whole = scored(method, ToyData().selection())
    assert whole.sample_id.tolist() == [f"{place}.jpg" for place in range(VALIDATION)]
    assert whole.logit.tolist() == pytest.approx([float(ToyData().sample((0, 1000, place))[0][0].mean())
                                                  for place in range(VALIDATION)])
    mixed = scored(method, [ToyData().scoring_batch([7, 2, 11, 0]), ToyData().scoring_batch([10, 1, 3, 4, 5, 6, 8, 9])])
    assert mixed.sample_id.tolist() == whole.sample_id.tolist()
    assert mixed.logit.tolist() == pytest.approx(whole.logit.tolist())
    assert whole.context == CONTEXT


def test_labels_species_subjects_and_videos_come_from_the_samples(method):
    table = scored(method, ToyData().selection())
    assert table.subject.tolist()[:2] == ["", "01"]  # unknown is not a subject
    assert set(table.species[table.label == 1]) == {"bona_fide"}
    assert set(table.species[table.label == 0]) == {"print"}
    assert set(table.domain) == {"C"}
    assert table.video_id.tolist()[3] == "3"


@pytest.mark.parametrize(("withheld", "subset"), [((), "rgb+depth+infrared"), ((1,), "rgb+infrared"),
                                                  ((1, 2), "rgb")])
def test_the_subset_is_what_the_split_offers(method, withheld, subset):
    """A sample without infrared, of which the toy has some, does not make it another experiment."""
    batch = ToyData().scoring_batch(list(range(VALIDATION)))
    batch.inputs.present[:, list(withheld)] = False
    assert scored(method, [batch]).subset() == subset


def test_a_place_scored_twice_is_refused(method):
    with pytest.raises(ScoreTableError, match=r"place 2 of the list, was scored twice"):
        scored(method, [ToyData().scoring_batch([0, 1, 2]), ToyData().scoring_batch([2, 3])])


def test_a_split_without_samples_is_refused(method):
    with pytest.raises(ScoreTableError, match="no sample that can be scored"):
        scored(method, [])


def test_a_score_that_is_no_number_is_named(method):
    batch = ToyData().scoring_batch([0, 1])
    planes = batch.inputs.planes.copy()
    planes[1] = np.nan
    with pytest.raises(TrainingDiverged, match=r"score of 1\.jpg is nan; the weights of epoch 3"):
        scored(method, [dataclasses.replace(batch, inputs=batch.inputs._replace(planes=planes))])


def test_one_process_gathers_itself():
    assert gather_blobs(b"blob", SingleProcess()) == [b"blob"]
    assert sum_over_processes([1, 2], SingleProcess()) == [1, 2]
    assert torch.distributed.is_initialized() is False
