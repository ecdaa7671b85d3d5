import numpy as np
import pytest

from detect.face_finder import FaceFinder, infrared_picture, mean_grey
from tests.detect.drawn_face import box

MS = 1_000_000
BRIGHT = np.full((480, 640, 3), 120, np.uint8)
DARK = np.full((480, 640, 3), 4, np.uint8)
INFRARED = np.tile(np.linspace(10, 90, 848).astype(np.uint8), (480, 1))


class RecordedDetector:
    """Gives what it was told, and remembers which images it was shown."""

    def __init__(self, *answers):
        self.answers, self.shown = list(answers), []

    def detect(self, image):
        self.shown.append(image)
        return self.answers.pop(0)

    def close(self):
        pass


def test_in_the_light_the_colour_image_is_searched():
    detector = RecordedDetector([box()])
    finding = FaceFinder(detector).step(BRIGHT, INFRARED, 0)
    assert detector.shown[0] is BRIGHT
    assert (finding.image_used, finding.image_size, finding.conditions) == ("colour", (640, 480), ())
    assert finding.subject.box.image == "colour"
    assert finding.brightness == pytest.approx(120)


def test_in_the_dark_the_infrared_image_is_searched_and_its_boxes_say_so():
    detector = RecordedDetector([box()])
    finding = FaceFinder(detector).step(DARK, INFRARED, 0)
    assert detector.shown[0].shape == (480, 848, 3)
    assert (finding.image_used, finding.image_size, finding.conditions) == ("infrared", (848, 480), ("too_dark",))
    assert finding.subject.box.image == "infrared"


def test_in_the_dark_without_infrared_the_colour_image_must_do():
    finding = FaceFinder(RecordedDetector([])).step(DARK, None, 0)
    assert (finding.image_used, finding.conditions) == ("colour", ("no_face", "too_dark"))


def test_light_at_the_limit_does_not_flicker_between_images():
    finder = FaceFinder(RecordedDetector([], [], [], []), dark_level=25, dark_hysteresis=5)
    used = [finder.step(np.full((480, 640, 3), level, np.uint8), INFRARED, n).image_used
            for n, level in enumerate((26, 24, 27, 31))]
    assert used == ["colour", "infrared", "infrared", "colour"]


def test_a_change_of_image_breaks_the_track():
    finder = FaceFinder(RecordedDetector([box()], [box()]))
    before = finder.step(BRIGHT, INFRARED, 0).subject.track_id
    assert finder.step(DARK, INFRARED, 33 * MS).subject.track_id != before


def test_several_faces_give_no_subject():
    finding = FaceFinder(RecordedDetector([box(0), box(300)])).step(BRIGHT, None, 0)
    assert finding.subject is None
    assert len(finding.faces) == 2
    assert finding.conditions == ("multiple_faces",)


@pytest.mark.parametrize(("infrared", "what"), [
    (INFRARED, "8 bit"), (INFRARED.astype(np.uint16) * 4, "10 bit in 16"), (INFRARED.astype(np.uint16) * 256, "16 bit"),
])
def test_the_infrared_picture_uses_the_whole_range_at_any_bit_depth(infrared, what):
    picture = infrared_picture(infrared)
    assert picture.dtype == np.uint8, what
    assert picture.min() < 5, what
    assert picture.max() > 250, what
    assert np.array_equal(picture[..., 0], picture[..., 2])


def test_an_even_infrared_plane_is_not_blown_up_to_noise():
    assert np.ptp(infrared_picture(np.full((480, 848), 30, np.uint8))) == 0


def test_mean_grey_weighs_green_most():
    green, blue = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    green[..., 1], blue[..., 2] = 100, 100
    assert mean_grey(green) == pytest.approx(58.7)
    assert mean_grey(blue) == pytest.approx(11.4)
