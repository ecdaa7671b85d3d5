"""Lists exactly as published: forms, labels, species, subjects, and everything that is not such a list."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmdg_model.scorer import Modality
from mmdg_model.training import casia_surf, cefa, padisi, wmca
from mmdg_model.training.manifests import COUNTS, read_list, read_manifests, read_metadata
from mmdg_model.training.samples import Domain, ListCounts, ManifestError, Split, deduplicated
from tests.mmdg_model.training.trees import (
    PUBLIC_LISTS,
    WITHOUT_PUBLIC_LISTS,
    lines_of,
    write_full_lists,
)

SURF_LIVE = "CASIA-SURF-CROP/real_part/real_train_part/CLKJ_BS0001/real.rssdk"
SURF_SPOOF = "CASIA-SURF-CROP/fake_part/fake_train_part/CLKJ_BS0001/04_en_b.rssdk"


def counted(samples):
    live = sum(sample.bona_fide for sample in samples)
    return ListCounts(lines=len(samples), live=live, spoof=len(samples) - live,
                      duplicates=len(samples) - len(deduplicated(samples)))


def read_text(tmp_path, text, domain=Domain.CASIA_SURF, **options):
    (tmp_path / "list.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_list(tmp_path / "list.txt", tmp_path, domain, Split.TRAIN, **options)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    lists = write_full_lists(tmp_path_factory.mktemp("lists"))
    return read_manifests(lists.parent, lists)


@pytest.fixture(scope="module")
def public():
    return read_manifests(Path("nowhere"), Path(PUBLIC_LISTS))


@pytest.mark.parametrize("key", COUNTS, ids="-".join)
def test_counts_of_lists_of_the_public_form(written, key):
    assert counted(written[key]) == COUNTS[key]


@pytest.mark.skipif(PUBLIC_LISTS is None, reason=WITHOUT_PUBLIC_LISTS)
class TestPublicLists:
    def test_counts(self, public):
        assert {key: counted(samples) for key, samples in public.items()} == COUNTS

    def test_every_path_that_can_tell_species_and_subject_does(self, public):
        silent = {key for key, samples in public.items()
                  if any("unknown" in (sample.species, sample.subject) for sample in samples)}
        assert silent == {(Domain.PADISI, split) for split in Split}

    def test_wmca_has_the_videos_per_species_that_its_paper_counts(self, public):
        species = {sample.recording: sample.species for (domain, _), samples in public.items()
                   if domain is Domain.WMCA for sample in samples}
        assert Counter(species.values()) == {"bona_fide": 347, "print": 200, "replay": 348, "fake_head": 122,
                                             "rigid_mask": 137, "flexible_mask": 379, "paper_mask": 71, "glasses": 75}

    def test_cefa_has_its_masks_in_the_test_list_only(self, public):
        masks = [{sample.subject for sample in public[Domain.CEFA, split] if sample.species.endswith("mask")}
                 for split in Split]
        assert [len(each) for each in masks] == [0, 0, 99 + 8]

    def test_recordings_have_three_frames_but_where_files_are_known_to_miss(self, public):
        for domain in (Domain.CASIA_SURF, Domain.WMCA):
            for split in Split:
                frames = Counter(sample.recording for sample in public[domain, split])
                assert set(frames.values()) == {3}


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
@pytest.mark.parametrize("separator", [" ", "\t", "  \t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \r\n"])
def test_ways_to_write_a_list(tmp_path, ending, separator, start):
    names = [f"{SURF_LIVE}/{sensor}/121.jpg" for sensor in ("color", "depth", "ir")]
    (sample,) = read_text(tmp_path, start + separator.join([*names, "1"]) + ending)
    assert sample.bona_fide
    assert sample.name == names[0]
    assert dict(sample.files) == dict(zip(Modality, (tmp_path / name for name in names), strict=True))
    assert sample.recording == SURF_LIVE


def test_duplicates_stay_in_the_list_and_go_when_asked(tmp_path):
    lines = lines_of(Domain.WMCA, Split.TRAIN, 1, 1)
    samples = read_text(tmp_path, "\r\n".join(lines + lines), Domain.WMCA)
    assert [sample.line for sample in samples] == [1, 2, 3, 4]
    assert [sample.line for sample in deduplicated(samples)] == [1, 2]


@pytest.mark.parametrize(("text", "complaint"), [
    (f"{SURF_LIVE}/color/1.jpg {SURF_LIVE}/depth/1.jpg 1", "line 1: 3 fields in .* expected the rgb, depth and"),
    (f"{SURF_LIVE}/color/1.jpg a b 2", "label '2', expected 1 for live"),
    (f"{SURF_LIVE}/color/1.jpg a b live", "label 'live'"),
    (f"{SURF_SPOOF}/color/1.jpg a b 1", "label 1 says live, but .* is an attack; this benchmark's lists call live 1"),
    (f"{SURF_LIVE}/color/1.jpg a b 0", "label 0 says spoof, but .* is live"),
    ("/etc/passwd a b 1", "path '/etc/passwd' leaves the data root"),
    ("a ../b c 1", "path '../b' leaves the data root"),
    ("a b C:\\c 1", "leaves the data root"),
    ("a b c 1\nd e f 0\na b c 0", "line 3: a is labelled 0 here and 1 before"),
    ("", "is empty"),
    ("\r\n \n", "is empty"),
    (b"\xff\xfe\x00", "cannot be read"),
])
def test_refused_lists(tmp_path, text, complaint):
    with pytest.raises(ManifestError, match=complaint):
        read_text(tmp_path, text)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from(f"01 \t\n\r./\\:é\0{chr(0xFEFF)}ab"), max_size=60),
       domain=st.sampled_from(Domain))
def test_any_text_is_a_list_or_refused_by_its_place(tmp_path, text, domain):
    try:
        samples = read_text(tmp_path, text, domain, padisi_files={})
    except ManifestError as refusal:
        samples, told = (), str(refusal)
    else:
        told = str(tmp_path / "list.txt")
    assert str(tmp_path / "list.txt") in told
    assert all(path.is_relative_to(tmp_path) for sample in samples for path in sample.files.values())


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ManifestError, match=r"no list .*C-val\.txt; the folder of lists holds"):
        read_list(tmp_path / "C-val.txt", tmp_path, Domain.CEFA, Split.VALIDATION)


@pytest.mark.parametrize(("read", "path", "told"), [
    (casia_surf, f"{SURF_LIVE}/color/41.jpg", (True, "bona_fide", "CLKJ_BS0001")),
    (casia_surf, f"{SURF_SPOOF}/color/41.jpg", (False, "bent_print_eyes_nose_cut", "CLKJ_BS0001")),
    (casia_surf, f"{SURF_SPOOF.replace('04_en_b', '07_hood')}/color/1.jpg", (False, "unknown", "CLKJ_BS0001")),
    (casia_surf, SURF_SPOOF.replace("fake_train", "real_train") + "/color/1.jpg", (None, "unknown", "unknown")),
    (cefa, "CeFA/CeFA-Race/CA/CA-199/2_199_1_1_1/profile/0009.jpg", (True, "bona_fide", "CA-199")),
    (cefa, "CeFA/CeFA-Race/CA/CA-199/2_199_3_2_2/profile/0009.jpg", (False, "cloth_print", "CA-199")),
    (cefa, "CeFA/CeFA-Race/EA/EA-199/3_199_3_1_3/profile/0009.jpg", (False, "photo_print", "EA-199")),
    (cefa, "CeFA/CeFA-Race/CA/CA-199/2_199_3_1_4/profile/0009.jpg", (False, "screen_replay", "CA-199")),
    (cefa, "CeFA/CeFA-Race/CA/CA-199/2_199_3_1_9/profile/0009.jpg", (None, "unknown", "CA-199")),
    (cefa, "CeFA/CeFA-Race/CA/CA-199/2_198_3_1_4/profile/0009.jpg", (None, "unknown", "unknown")),
    (cefa, "CeFA/CeFA-Mask/3D-Mask/001/1_001_0_1_2_1_3/profile/0009.jpg", (False, "printed_3d_mask", "3D-Mask-001")),
    (cefa, "CeFA/CeFA-Mask/Silicone-Mask/008/2_008_1_1_2_1_4/profile/0051.jpg",
     (False, "silicone_mask", "Silicone-Mask-008")),
    (wmca, "WMCA-Image/R_CDIT/006_02_000_0_02/color/0012.jpg", (True, "bona_fide", "006")),
    (wmca, "WMCA-Image/R_CDIT/535_07_066_1_16/color/0024.jpg", (False, "glasses", "535")),
    (wmca, "WMCA-Image/R_CDIT/101_06_067_1_02/color/0024.jpg", (False, "rigid_mask", "101")),
    (wmca, "WMCA-Image/R_CDIT/001_04_010_3_05/color/0024.jpg", (False, "replay", "001")),
    (wmca, "WMCA-Image/R_CDIT/001_04_010_5_17/color/0024.jpg", (False, "unknown", "001")),
    (wmca, "elsewhere/001_04_010_5_17/color/0024.jpg", (None, "unknown", "unknown")),
])
def test_what_a_path_tells(read, path, told):
    presentation = read.presentation(path)
    assert (presentation.bona_fide, presentation.species, presentation.subject) == told


def test_what_nothing_tells_stays_unknown(tmp_path):
    live, spoof = read_text(tmp_path, "0000000a.npz\t1\n0000000b.npz\t0\n", Domain.PADISI)
    assert (live.species, live.subject) == ("bona_fide", "unknown")
    assert (spoof.species, spoof.subject) == ("unknown", "unknown")


PADISI_TABLE = """transaction_id,trial_id,trial_name,modality,ground_truth,participant_id,age
aa,0000000a,FACE_NEUTRAL,FACE,m00000,55f98642,23
aa,0000000b,FACE_SMILE,FACE,m50504,55f98642,23
aa,0000000c,FACE_SMILE,FACE,m50602,,23
"""


def test_metadata_tells_padisi_species_and_subjects(tmp_path):
    (tmp_path / "truth.csv").write_text(PADISI_TABLE)
    samples = read_text(tmp_path, "0000000a.npz\t1\n0000000b.npz\t0\n0000000c.npz\t0\n0000000d.npz\t0\n", Domain.PADISI,
                        metadata=read_metadata(tmp_path / "truth.csv"))
    assert [(sample.species, sample.subject) for sample in samples] == [
        ("bona_fide", "55f98642"), ("transparent_mask", "55f98642"), ("makeup", "unknown"), ("unknown", "unknown")]


def test_metadata_that_contradicts_a_label(tmp_path):
    (tmp_path / "truth.csv").write_text(PADISI_TABLE)
    with pytest.raises(ManifestError, match=r"label 1 says live, but 0000000b\.npz is an attack"):
        read_text(tmp_path, "0000000b.npz\t1\n", Domain.PADISI, metadata=read_metadata(tmp_path / "truth.csv"))


def test_general_metadata_fills_in_but_never_overrides_a_path(tmp_path):
    (tmp_path / "table.csv").write_text(f"path,subject,species\nnew/1/color/1.jpg,anna,wig\n"
                                        f"new/2/color/1.jpg,bert,\n{SURF_SPOOF}/color/1.jpg,carl,wig\n")
    lines = [f"{path} d i 0" for path in ("new/1/color/1.jpg", "new/2/color/1.jpg", f"{SURF_SPOOF}/color/1.jpg")]
    samples = read_text(tmp_path, "\n".join(lines), metadata=read_metadata(tmp_path / "table.csv"))
    assert [(sample.species, sample.subject) for sample in samples] == [
        ("wig", "anna"), ("unknown", "bert"), ("bent_print_eyes_nose_cut", "CLKJ_BS0001")]


@pytest.mark.parametrize(("table", "complaint"), [
    ("path,species\na,b\n", "has the columns path, species, expected path, subject, species"),
    ("", r"has the columns \(none\)"),
    ("path,subject,species\na,b\n", "line 2: fewer cells than columns"),
    ("path,subject,species\n,b,c\n", "line 2: the path is empty"),
    ("path,subject,species\na,b,c\na,b,d\n", "line 3: a stands there twice, told differently"),
    ("trial_id,ground_truth,participant_id\na,m5999,b\n", "ground_truth is 'm5999', expected m00000"),
    ("trial_id,ground_truth,participant_id\na,m51001,b\n", "ground_truth is 'm51001'"),
])
def test_refused_metadata(tmp_path, table, complaint):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ManifestError, match=complaint):
        read_metadata(tmp_path / "table.csv")


@pytest.mark.parametrize("folder", ["", "PADISI-Face", "PADISI"])
@pytest.mark.parametrize("name", ["0000000a.npz", "ID_a4acb647_0000000a_FACE_SMILE_WITH_GLASS.npz"])
def test_padisi_files_are_found_under_either_name(tmp_path, folder, name):
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (sample,) = read_text(tmp_path, "0000000a.npz\t1\n", Domain.PADISI)
    assert set(sample.files.values()) == {path}


def test_two_padisi_files_of_one_trial(tmp_path):
    names = ["ID_aa_0000000a_FACE.npz", "ID_bb_0000000a_FACE.npz"]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ManifestError, match="both carry trial 0000000a"):
        padisi.find_files(tmp_path)


def test_a_renamed_padisi_file_wins_over_the_original_name(tmp_path):
    for name in ("0000000a.npz", "ID_aa_0000000a_FACE.npz", "0000000b.npz.part", "notes.npz"):
        (tmp_path / name).touch()
    assert padisi.find_files(tmp_path) == {"0000000a": tmp_path / "0000000a.npz"}
