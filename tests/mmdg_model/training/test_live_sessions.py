"""The layout of live sessions: what a folder says, a path tells again."""

import pytest

from mmdg_model.training.live_sessions import folder, presentation
from mmdg_model.training.manifests import read_list
from mmdg_model.training.samples import BONA_FIDE, UNKNOWN, Domain, ManifestError, Presentation, Split


@pytest.mark.parametrize(("species", "live"), [(BONA_FIDE, True), ("flat_print_eyes_cut", False)])
def test_a_path_tells_what_its_folder_was_named_for(species, live):
    told = presentation(f"{folder('t00012', species, 3)}/color/0001.png")
    assert told == Presentation(bona_fide=live, species=species, subject="t00012")


@pytest.mark.parametrize("path", ["LIVE/t1_print/color/1.png", "LIVE/t1_print_0/1.png", "WMCA/t1_print_0/color/1.png"])
def test_another_form_tells_nothing(path):
    assert presentation(path) == Presentation()


def test_a_list_may_not_contradict_its_paths(tmp_path):
    live = folder("t1", BONA_FIDE, 0)
    (tmp_path / "L-train.txt").write_text(f"{live}/color/0.png {live}/depth/0.png {live}/ir/0.png 0")
    with pytest.raises(ManifestError, match="label 0 says spoof"):
        read_list(tmp_path / "L-train.txt", tmp_path, Domain.LIVE, Split.TRAIN)


def test_samples_of_one_session_are_one_recording(tmp_path):
    session = folder("t1", "paper_mask", 2)
    (tmp_path / "L-val.txt").write_text("\n".join(
        f"{session}/color/{n}.png {session}/depth/{n}.png {session}/ir/{n}.png 0" for n in range(2)))
    samples = read_list(tmp_path / "L-val.txt", tmp_path, Domain.LIVE, Split.VALIDATION)
    assert {each.recording for each in samples} == {session}
    assert {(each.species, each.subject) for each in samples} == {("paper_mask", "t1")}
    assert UNKNOWN not in {each.species for each in samples}
