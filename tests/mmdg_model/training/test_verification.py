"""The report on a tree: sound trees pass, and each kind of fault is found where it was put."""

import re
import shutil

import cv2
import numpy as np
import pytest

from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import TroubleKind
from mmdg_model.training.manifests import COUNTS, list_path, read_list, read_metadata
from mmdg_model.training.padisi import trial_of
from mmdg_model.training.samples import Domain, ListCounts, Split
from mmdg_model.training.verification import verify
from tests.mmdg_model.training.trees import channels, lines_of, small_tree, write_full_lists, write_list


@pytest.fixture(scope="module")
def full_lists(tmp_path_factory):
    return write_full_lists(tmp_path_factory.mktemp("lists"))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    return root


@pytest.fixture
def tree(template, tmp_path):
    return shutil.copytree(template, tmp_path / "tree")


def files_of(tree, domain, split, line):
    return read_list(list_path(tree / "lists", domain, split), tree, domain, split)[line - 1].files


def report_of(verification, name):
    return next(report for report in verification.lists if report.list_name == name)


def test_lists_as_published_pass(full_lists):
    verification = verify(full_lists, full_lists, check_files=False)
    assert verification.passed
    assert [report.list_name for report in verification.lists] == [f"{domain}-{split}" for domain, split in COUNTS]
    assert [report.counts for report in verification.lists] == list(COUNTS.values())
    assert [(each.lists, len(each.names), each.expected) for each in verification.overlaps] == [
        (("C-val", "C-test"), 1, 1)]


def test_a_whole_data_set_passes_with_its_files(full_lists, tmp_path):
    """Of PADISI-Face's 2,029 files, tiny ones."""
    rows = ["trial_id,ground_truth,participant_id"]
    for split in Split:
        for sample in read_list(list_path(full_lists, Domain.PADISI, split), tmp_path, Domain.PADISI, split):
            levels = np.frombuffer(sample.name[:8].encode() + bytes(8), dtype=np.uint8).reshape(4, 4)
            np.savez(tmp_path / sample.name, data=channels(levels))
            code = "m00000" if sample.bona_fide else "m50102"
            rows.append(f"{trial_of(sample.name)},{code},{split}{sample.line % 9}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    seen = []
    verification = verify(tmp_path, full_lists, domains=[Domain.PADISI], metadata=read_metadata(tmp_path / "truth.csv"),
                          on_progress=lambda done, total: seen.append((done, total)))
    assert verification.passed
    assert verification.files_checked == 2029
    assert seen[-1] == (2029, 2029)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert report_of(verification, "P-train").species == {"bona_fide": 597, "funny_eyes": 493}
    assert report_of(verification, "P-train").num_subjects == 9


def test_a_small_tree_is_sound_but_not_as_published(tree):
    verification = verify(tree, tree / "lists")
    assert [report.counts for report in verification.lists] == [ListCounts(lines=5, live=2, spoof=3)] * 12
    assert not any(report.troubles or report.agrees for report in verification.lists)
    assert verification.overlaps == ()
    assert verification.files_checked == 3 * 3 * 5 * 3 + 3 * 5
    assert not verification.passed


def test_missing_and_unreadable_files_are_reported_by_path(tree):
    missing = files_of(tree, Domain.CEFA, Split.TRAIN, 1)[Modality.DEPTH]
    missing.unlink()
    broken = files_of(tree, Domain.CEFA, Split.TRAIN, 4)[Modality.RGB]
    broken.write_bytes(broken.read_bytes()[:200])
    black = files_of(tree, Domain.CEFA, Split.TRAIN, 5)[Modality.RGB]
    cv2.imwrite(str(black), np.zeros((8, 8, 3), dtype=np.uint8))
    channel_file = files_of(tree, Domain.PADISI, Split.TEST, 2)[Modality.RGB]
    channel_file.write_bytes(b"no archive")
    verification = verify(tree, tree / "lists")
    assert {(trouble.path, trouble.modality, trouble.kind) for report in verification.lists
            for trouble in report.troubles if "P" not in report.list_name} == {
        (missing, Modality.DEPTH, TroubleKind.MISSING), (broken, Modality.RGB, TroubleKind.UNREADABLE),
        (black, Modality.RGB, TroubleKind.UNREADABLE)}
    assert report_of(verification, "C-train").num_troubles(TroubleKind.UNREADABLE) == {Modality.RGB: 2}
    (trouble,) = report_of(verification, "P-test").troubles
    assert (trouble.path, trouble.modality) == (channel_file, Modality.RGB)


def test_an_infrared_file_of_a_duplicate_line_is_reported_once(tree):
    lines = lines_of(Domain.WMCA, Split.VALIDATION, 2, 3)
    write_list(tree / "lists", Domain.WMCA, Split.VALIDATION, [*lines, lines[4]])
    files_of(tree, Domain.WMCA, Split.VALIDATION, 5)[Modality.INFRARED].unlink()
    report = report_of(verify(tree, tree / "lists"), "W-val")
    assert report.counts == ListCounts(lines=6, live=2, spoof=4, duplicates=1)
    assert len(report.troubles) == 1


def test_samples_subjects_and_pictures_in_two_lists(tree):
    test_lines = lines_of(Domain.CASIA_SURF, Split.TEST, 2, 3)
    train_lines = lines_of(Domain.CASIA_SURF, Split.TRAIN, 2, 3)
    write_list(tree / "lists", Domain.CASIA_SURF, Split.TRAIN, [*train_lines, test_lines[0]])
    write_list(tree / "lists", Domain.WMCA, Split.VALIDATION,
               [line.replace("/300_00_", "/100_19_") for line in lines_of(Domain.WMCA, Split.VALIDATION, 2, 3)])
    copied = files_of(tree, Domain.CEFA, Split.TRAIN, 2)[Modality.RGB]
    shutil.copy(copied, files_of(tree, Domain.CEFA, Split.TEST, 3)[Modality.RGB])
    surf, cefa, wmca = sorted(verify(tree, tree / "lists").overlaps, key=lambda each: "SCW".index(each.lists[0][0]))
    assert (surf.lists, surf.names) == (("S-train", "S-test"), (test_lines[0].split()[0],))
    assert (cefa.lists, cefa.names) == (("C-train", "C-test"), ())
    assert cefa.same_pictures == ((lines_of(Domain.CEFA, Split.TRAIN, 2, 3)[1].split()[0],
                                   lines_of(Domain.CEFA, Split.TEST, 2, 3)[2].split()[0]),)
    assert (wmca.lists, wmca.subjects, wmca.names) == (("W-train", "W-val"), ("100",), ())


@pytest.mark.parametrize(("content", "error"), [
    (None, "no list .*W-train.txt"),
    ("a b c\n", "line 1: 3 fields"),
    ("\n".join(lines_of(Domain.WMCA, Split.TRAIN, 1, 1)).replace(" 1", " 7"), "label '7'"),
])
def test_a_list_that_cannot_be_read_is_reported_beside_the_others(tree, content, error):
    path = list_path(tree / "lists", Domain.WMCA, Split.TRAIN)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    verification = verify(tree, tree / "lists", domains=[Domain.WMCA])
    train, *others = verification.lists
    assert (train.counts, train.agrees) == (None, False)
    assert re.search(error, train.error)
    assert all(report.counts is not None for report in others)


@pytest.mark.parametrize("fault", ["one line less", "one label turned"])
def test_lists_other_than_published_do_not_pass(full_lists, tmp_path, fault):
    lists = shutil.copytree(full_lists, tmp_path / "lists")
    path = list_path(lists, Domain.PADISI, Split.VALIDATION)
    lines = path.read_text().splitlines()
    lines[-1:] = [] if fault == "one line less" else [lines[-1].replace("\t0", "\t1")]
    path.write_text("\n".join(lines))
    verification = verify(tmp_path, lists, check_files=False)
    assert [report.list_name for report in verification.lists if not report.agrees] == ["P-val"]
    assert not verification.passed
