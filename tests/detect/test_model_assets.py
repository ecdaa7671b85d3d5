import zipfile

import pytest

from detect import model_assets
from detect.faces import DetectorError
from detect.model_assets import (
    FACE_MODEL_FILE,
    WHEEL_MEMBER,
    assets_folder,
    extract_face_model,
    find_face_model,
    install_face_model,
)


def known_model(monkeypatch, content):
    """Make `content` the model that this build knows: the real one needs a 35.6 MB download."""
    import hashlib
    monkeypatch.setattr(model_assets, "FACE_MODEL_SHA256", hashlib.sha256(content).hexdigest())


def wheel_with(monkeypatch, path, member, content):
    import hashlib
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    monkeypatch.setattr(model_assets, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize(("environment", "expected"), [
    ({"MMDG_ASSETS": "/srv/assets", "XDG_CACHE_HOME": "/xdg"}, "/srv/assets"),
    ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/mmdg-live"),
    ({"HOME": "/home/kiosk"}, "/home/kiosk/.cache/mmdg-live"),
])
def test_the_folder_follows_the_environment(monkeypatch, environment, expected):
    for name in ("MMDG_ASSETS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(assets_folder()) == expected


def test_a_missing_model_names_the_command_that_installs_it(tmp_path):
    with pytest.raises(DetectorError, match=r"No such file.*python -m detect\.model_assets"):
        find_face_model(tmp_path)


def test_a_wrong_model_is_refused_with_both_hashes(tmp_path):
    (tmp_path / FACE_MODEL_FILE).write_bytes(b"not a model")
    with pytest.raises(DetectorError, match=r"SHA-256 is [0-9a-f]{64}, expected bbff11ce"):
        find_face_model(tmp_path)


def test_install_fetches_once_then_reuses(monkeypatch, tmp_path):
    known_model(monkeypatch, b"the model")
    fetched = []

    def fetch(folder):
        fetched.append(folder)
        return wheel_with(monkeypatch, folder / "m.whl", WHEEL_MEMBER, b"the model")

    path, was_fetched = install_face_model(tmp_path / "assets", fetch_wheel=fetch)
    assert was_fetched
    assert path.read_bytes() == b"the model"
    assert install_face_model(tmp_path / "assets", fetch_wheel=fetch) == (path, False)
    assert len(fetched) == 1
    assert [p.name for p in path.parent.iterdir()] == [FACE_MODEL_FILE]  # no half-made file beside it


def test_install_replaces_a_damaged_file(monkeypatch, tmp_path):
    known_model(monkeypatch, b"the model")
    (tmp_path / FACE_MODEL_FILE).write_bytes(b"the mod")
    path, _ = install_face_model(
        tmp_path, fetch_wheel=lambda folder: wheel_with(monkeypatch, folder / "m.whl", WHEEL_MEMBER, b"the model"))
    assert path.read_bytes() == b"the model"


def test_another_wheel_is_refused_before_it_is_opened(tmp_path):
    (tmp_path / "m.whl").write_bytes(b"anything")
    with pytest.raises(DetectorError, match="the index served another file"):
        extract_face_model(tmp_path / "m.whl")


@pytest.mark.parametrize(("member", "content", "message"), [
    ("mediapipe/else.tflite", b"the model", "cannot be taken out"),
    (WHEEL_MEMBER, b"another model", "has SHA-256"),
])
def test_a_wheel_without_the_right_member_is_refused(monkeypatch, tmp_path, member, content, message):
    known_model(monkeypatch, b"the model")
    with pytest.raises(DetectorError, match=message):
        extract_face_model(wheel_with(monkeypatch, tmp_path / "m.whl", member, content))


def test_a_failed_download_says_what_was_run_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(model_assets, "WHEEL_REQUIREMENT", "mediapipe==")  # pip refuses this without any network
    with pytest.raises(DetectorError, match=r"pip download .* ended with [1-9]"):
        install_face_model(tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


def test_a_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    known_model(monkeypatch, b"the model")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DetectorError, match="set MMDG_ASSETS"):
        install_face_model(tmp_path / "file" / "assets", fetch_wheel=lambda folder: wheel_with(
            monkeypatch, folder / "m.whl", WHEEL_MEMBER, b"the model"))
