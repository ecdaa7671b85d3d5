"""Figures of ISO/IEC 30107-3 on sessions that can be counted by hand, and the page that shows them."""

import html.parser
import json
import re

import pytest
from scipy import stats

from pipeline.policy import SIMULATED_POLICY
from pipeline.session_report.figures import ScoredSession, frozen_point, session_report
from pipeline.session_report.page import html as page_of
from pipeline.session_report.page import write_session_report
from pipeline.simulated_sessions.judging import judge, peak_evidence
from tests.pipeline.simulated_sessions.films import MODEL, POINT, record, scores

POLICY = SIMULATED_POLICY.calibrated(POINT)
FACTS = {"command": "mmdg evaluate sessions <by hand>", "date": "2026-11-23T00:00:00+00:00", "checkpoint": "a" * 64,
         "purpose": "simulated", "number": 21, "splits": ["val"], "sessions_sha256": ["b" * 64],
         "development_sha256": [], "test_set_opened": 0, "operating_point": POINT.to_dict(), "calibration_id": "c" * 16,
         "calibration": "checkpoint", "camera_kinds": ["simulated-d4xx"], "frame_correlation": [0.0],
         "lasting_share": [0.0],
         "accept_bound": POLICY.upper_bound, "reject_bound": POLICY.lower_bound, "threshold_id": None,
         "policy_sha256": "d" * 64, "policy": {"name": "simulated", "apcer_max": 0.05}}


def both(species, logits, index, **changes):
    """One session, decided and as a number."""
    film = record(species, index, **changes)
    own = scores(film, logits)
    return judge(film, own, SIMULATED_POLICY, MODEL), ScoredSession(
        species=species, live=species == "bona_fide", peak=peak_evidence(film, own, SIMULATED_POLICY, MODEL))


@pytest.fixture(scope="module")
def sessions():
    """Live: 7 accepted, 1 rejected, 1 undecided, 1 without response. Masks: 1 of 4 accepted, 1 without response.
    Prints: none of 7."""
    pairs = [both("bona_fide", 6.0, index) for index in range(7)]
    pairs += [both("bona_fide", -6.0, 7), both("bona_fide", 0.1, 8), both("bona_fide", 0.0, 9, missed=range(12))]
    pairs += [both("silicone_mask", logit, index) for index, logit in enumerate((6.0, -6.0, 0.1))]
    pairs += [both("silicone_mask", 0.0, 3, missed=range(12))]
    pairs += [both("flat_print", -6.0, index) for index in range(7)]
    return tuple(zip(*pairs, strict=True))


@pytest.fixture(scope="module")
def report(sessions):
    return session_report(*sessions, [], POLICY, FACTS)


def test_rates_by_species_have_exact_intervals_and_the_worst_comes_first(report):
    values = report.to_dict()
    assert list(values["species"]) == ["silicone_mask", "flat_print"]
    assert values["worst_species"] == "silicone_mask"
    mask = values["species"]["silicone_mask"]
    assert (mask["sessions"], mask["accepted"], mask["rejected"], mask["undecided"], mask["non_response"]) == (
        4, 1, 1, 1, 1)
    apcer = mask["apcer"]
    assert (apcer["count"], apcer["trials"], apcer["rate"]) == (1, 4, 0.25)
    assert apcer["low_95"] == pytest.approx(stats.beta.ppf(0.025, 1, 4))
    assert apcer["high_95"] == pytest.approx(stats.beta.ppf(0.975, 2, 3))
    assert apcer["upper_bound_95"] == pytest.approx(stats.beta.ppf(0.95, 2, 3))
    assert mask["apnrr"]["rate"] == 0.25
    assert values["species"]["flat_print"]["apcer"]["upper_bound_95"] == pytest.approx(1 - 0.05 ** (1 / 7))
    # Non-responses do not flatter; two accepted sessions of one person are one person.
    assert (mask["apcer_of_responses"]["count"], mask["apcer_of_responses"]["trials"]) == (1, 3)
    assert (mask["people"]["count"], mask["people"]["trials"], mask["instruments"]) == (1, 4, None)
    live = values["bona_fide"]
    assert (live["classified_as_attack"]["count"], live["people"]["count"], live["people"]["trials"]) == (1, 3, 10)
    assert (live["bpcer"]["count"], live["bpnrr"]["count"], live["bpcer"]["trials"]) == (3, 1, 10)


def test_sessions_of_one_person_are_one_person_and_instruments_are_counted():
    pairs = [both("silicone_mask", logit, index, person=index // 2, instrument=f"mask-{index // 3}")
             for index, logit in enumerate((6.0, 6.0, -6.0, 6.0, -6.0, -6.0))]
    mask = session_report(*zip(*pairs, strict=True), [], POLICY, FACTS).to_dict()["species"]["silicone_mask"]
    assert (mask["apcer"]["count"], mask["apcer"]["trials"]) == (3, 6)
    assert (mask["people"]["count"], mask["people"]["trials"]) == (2, 3)
    assert mask["people"]["upper_bound_95"] == pytest.approx(stats.beta.ppf(0.95, 3, 1))
    assert mask["instruments"] == 2


def test_frames_have_rates_and_no_interval(report):
    frames = report.to_dict()["frames_at_llr_0"]
    assert frames["bpcer"] == pytest.approx(1 / 9)
    assert frames["apcer"] == {"flat_print": 0.0, "silicone_mask": pytest.approx(2 / 3)}


def test_time_stands_beside_its_floor(report):
    pace = report.to_dict()["time_to_acceptance"]
    assert (pace["decisions"], pace["median_ms"], pace["floor_ms"], pace["ratio_to_floor"]) == (8, 400, 400, 1.0)


# --- BPCER at fixed APCER ---------------------------------------------------------------------------------------------
def scored(species, *peaks):
    return [ScoredSession(species=species, live=species == "bona_fide", peak=peak) for peak in peaks]


DEVELOPMENT = scored("bona_fide", 6.0, 7.0) + scored("print", *[0.0] * 9, 4.0) + scored("mask", *[1.0] * 19, 5.0)


def test_the_threshold_is_set_on_development_sessions_and_frozen():
    judged = scored("bona_fide", 9.0, 4.5, 2.0) + scored("print", 0.0, 8.0) + scored("mask", *[0.0] * 4)
    point = frozen_point(0.1, DEVELOPMENT, judged)
    assert point.threshold == 4.0  # one of ten prints, one of twenty masks
    assert (point.live.count, point.live.trials) == (1, 3)
    assert (point.worst_species, point.attacks.count, point.attacks.trials) == ("print", 1, 2)
    # Whatever the judged sessions are like, the threshold is the same.
    assert frozen_point(0.1, DEVELOPMENT, scored("bona_fide", 1.0) + scored("print", 99.0)).threshold == 4.0


@pytest.mark.parametrize(("development", "judged", "said"), [
    (DEVELOPMENT, scored("print", 0.0), "among these sessions"),
    (scored("print", 0.0), DEVELOPMENT, "among development sessions"),
    (scored("bona_fide", 1.0) + scored("print", *[0.0] * 9), DEVELOPMENT, "9 development sessions of 'print'"),
    (scored("bona_fide", 1.0) + scored("print", *[2.0] * 10), DEVELOPMENT, "only refusing everyone"),
])
def test_what_development_sessions_cannot_tell_is_left_open(development, judged, said):
    point = frozen_point(0.1, development, judged)
    assert point.threshold is point.live is point.attacks is None
    assert said in point.unresolved


def test_a_session_in_which_nothing_counted_is_accepted_at_no_threshold():
    judged = scored("bona_fide", 9.0, float("-inf")) + scored("print", 0.0)
    assert frozen_point(0.1, DEVELOPMENT, judged).live.count == 1


# --- the page -------------------------------------------------------------------------------------------------------
class Balance(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_and_marked_simulated_everywhere(sessions, tmp_path):
    judged, numbers = sessions
    found = session_report(judged, numbers, DEVELOPMENT, POLICY, FACTS)
    page = write_session_report(tmp_path, found, judged, numbers, POLICY)
    text = page.read_text()
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert balance.tags.count("svg") == 3
    assert not {"script", "img", "link", "iframe"} & set(balance.tags)
    assert not re.search(r'(src|href)="(?!#)[^"]*(http|/)', text)
    captions = re.findall(r"<(caption|figcaption)>(.*?)</", text)
    assert len(captions) == 8
    assert all(caption.startswith("Simulated sessions. ") for _, caption in captions)
    assert text.count("SIMULATED sessions") == 3  # in the pictures themselves
    assert "Every session is simulated" in text
    assert "There is no guarantee for any species or camera that was not." in text
    assert "BPCER10</td>" in text
    assert "Not measured and not claimed: IAPAR" in text
    assert "PAI species" in text
    assert "<b>25.0 %</b><span>at most 75.1 % at 95 % (1 of 4 sessions)" in text
    for stated in ("a" * 64, "b" * 64, "c" * 16, "d" * 64, "&lt;by hand&gt;"):
        assert stated in text
    values = json.loads((tmp_path / "sessions.json").read_text())
    assert values["simulated"] is True
    assert values["species"] == found.to_dict()["species"]
    assert len((tmp_path / "decisions.csv").read_text().splitlines()) == 1 + len(judged)


def test_without_development_sessions_the_page_says_why_a_figure_is_absent(sessions, report, tmp_path):
    text = write_session_report(tmp_path, report, *sessions, POLICY).read_text()
    assert "it takes development sessions" in text
    assert "BPCER10</td>" not in text


@pytest.mark.parametrize("kind", ["flat_print", "bona_fide"])
def test_a_page_of_one_label_says_nothing_of_the_other(kind, tmp_path):
    pair = both(kind, -6.0, 0)
    judged, numbers = [pair[0]], [pair[1]]
    found = session_report(judged, numbers, [], POLICY, FACTS)
    text = write_session_report(tmp_path, found, judged, numbers, POLICY).read_text()
    assert ("nothing is said of BPCER" in text) is (kind == "flat_print")
    assert ("nothing is said of APCER" in text) is (kind == "bona_fide")


def test_recorded_sessions_are_not_called_simulated(report):
    values = report.to_dict() | {"simulated": False, "frame_correlation": [0.5]}
    text = page_of(values, {"errors": "", "trade_off": "", "times": ""})
    assert "imulated sessions" not in text
    assert "There is no guarantee" in text
