"""Fetching official weights, from a server of this machine: nothing is kept that did not pass its check."""

import hashlib
import http.server
import threading

import pytest

from mmdg_model.weights import official
from mmdg_model.weights.layouts import LAYOUTS
from mmdg_model.weights.official import OFFICIAL, FetchError, OfficialWeights, fetch, fetched_file, official_weights

CONTENT = bytes(range(256)) * 5000


class Server(http.server.ThreadingHTTPServer):
    """Answers every request in the way that its path names, and counts requests."""

    requests = 0


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        way = self.path.split("/")[1]
        if way == "absent":
            self.send_error(404)
            return
        self.send_response(200)
        if way != "unsized":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write({"short": CONTENT[:1000], "damaged": CONTENT[:-1] + b"!"}.get(way, CONTENT))

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def row(server, way="sound", digits=64):
    return OfficialWeights(name="sample", title="a sample", sha256=hashlib.sha256(CONTENT).hexdigest()[:digits],
                           url=f"http://127.0.0.1:{server.server_port}/{way}/vit.pth", stated_in="this test",
                           layout="timm", terms="none")


@pytest.mark.parametrize(("way", "digits"), [("sound", 64), ("sound", 8), ("unsized", 64)])
def test_fetch(server, tmp_path, way, digits):
    seen = []
    path = fetch(row(server, way, digits), tmp_path / "deeper", on_progress=lambda *progress: seen.append(progress))
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [tmp_path / "deeper" / "vit.pth"]
    assert seen[-1] == (len(CONTENT), 0 if way == "unsized" else len(CONTENT))


def test_a_sound_file_is_not_fetched_again_and_a_damaged_one_is(server, tmp_path):
    path = fetch(row(server), tmp_path)
    before = server.requests
    assert fetch(row(server), tmp_path) == path
    assert server.requests == before
    path.write_bytes(CONTENT[:-1])
    assert fetched_file(row(server), tmp_path) is None
    assert fetch(row(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == before + 1


@pytest.mark.parametrize(("way", "complaint"), [
    ("damaged", f"SHA-256 {hashlib.sha256(CONTENT[:-1] + b'!').hexdigest()}, expected .*thrown away"),
    ("short", f"1000 of {len(CONTENT)} bytes"),
    ("absent", "HTTP Error 404"),
])
def test_anything_else_is_refused_and_not_kept(server, tmp_path, way, complaint):
    with pytest.raises(FetchError, match=complaint):
        fetch(row(server, way), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_than_any_file_of_the_table_is_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(official, "MAX_BYTES", 1000)
    with pytest.raises(FetchError, match="more than 1000 bytes"):
        fetch(row(server), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_what_to_do(tmp_path):
    weights = OfficialWeights(name="sample", title="a sample", sha256="0" * 8, url="http://127.0.0.1:1/vit.pth",
                              stated_in="this test", layout="timm", terms="none")
    with pytest.raises(FetchError) as caught:
        fetch(weights, tmp_path)
    for part in (weights.url, "on another machine", "sha256sum", str(tmp_path / "vit.pth"),
                 "mmdg import-weights --layout timm"):
        assert part in str(caught.value)


def test_only_http(tmp_path):
    weights = OfficialWeights(name="sample", title="a sample", sha256="0" * 8, url=(tmp_path / "a").as_uri(),
                              stated_in="this test", layout="timm", terms="none")
    with pytest.raises(FetchError, match="only http and https"):
        fetch(weights, tmp_path / "out")


@pytest.mark.parametrize("weights", OFFICIAL.values(), ids=list(OFFICIAL))
def test_table(weights):
    assert weights.url.startswith("https://")
    assert weights.sha256 in weights.url
    assert len(weights.sha256) in (8, 64)
    assert weights.layout in LAYOUTS
    assert ("does not stop a forger" in weights.check) is (len(weights.sha256) == 8)
    assert official.is_official(weights.sha256) is (len(weights.sha256) == 64)


def test_unknown_name():
    with pytest.raises(FetchError, match="'vit' are unknown; known: torchvision-vit-b-16, openai-clip-vit-b-16"):
        official_weights("vit")
