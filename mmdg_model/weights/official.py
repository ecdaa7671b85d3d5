"""Official pretrained weights: where they are, what proves that a file is the right one, and how to fetch it."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from mmdg_model.asset_directory import asset_directory

#: Larger than any file of the table; a server that sends more is not sending it.
MAX_BYTES = 2_000_000_000

_CHUNK_BYTES = 1 << 20


class FetchError(RuntimeError):
    """Weights could not be fetched, or are not the official ones; the message says what to do instead."""


@dataclass(frozen=True, kw_only=True)
class OfficialWeights:
    """One file that its authors publish.

    Attributes:
        name, title: for the command line and for people.
        url: where it is.
        sha256: the whole digest, or its first hexadecimal digits, whichever the authors state.
        stated_in: where they state it.
        layout: to import it with.
        terms: licence, in short.
    """

    name: str
    title: str
    url: str
    sha256: str
    stated_in: str
    layout: str
    terms: str

    @property
    def file_name(self) -> str:
        """Last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def check(self) -> str:
        """What a passed check means."""
        if len(self.sha256) == 64:
            return f"full SHA-256, stated in {self.stated_in}"
        return (f"first {len(self.sha256)} hexadecimal digits of the SHA-256, stated in {self.stated_in}: "
                "notices damage, does not stop a forger")

    def is_it(self, sha256: str) -> bool:
        """Whether a file of this digest passes the check."""
        return sha256.startswith(self.sha256)


#: Only files whose digest their authors state in a place that we could look up.
OFFICIAL: dict[str, OfficialWeights] = {weights.name: weights for weights in (
    OfficialWeights(
        name="torchvision-vit-b-16", title="ViT-B/16, ImageNet-1k (torchvision IMAGENET1K_V1)",
        url="https://download.pytorch.org/models/vit_b_16-c867db91.pth", sha256="c867db91",
        stated_in="the file name, as torchvision does for all its weights", layout="torchvision",
        terms="torchvision is BSD-3-Clause; ImageNet's terms apply to what was trained on it"),
    OfficialWeights(
        name="openai-clip-vit-b-16", title="CLIP ViT-B/16 (OpenAI)",
        url="https://openaipublic.azureedge.net/clip/models/"
            "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        stated_in="the URL's path, as OpenAI's loader checks it", layout="openai_clip",
        terms="MIT; see the model card for intended uses"),
)}


def is_official(sha256: str) -> bool:
    """Whether a file of this digest is one of the table whose full digest is known: only then its code is trusted."""
    return any(len(weights.sha256) == 64 and weights.sha256 == sha256 for weights in OFFICIAL.values())


def official_weights(name: str) -> OfficialWeights:
    """A row of the table.

    Raises:
        FetchError: no such name; lists those there are.
    """
    if name not in OFFICIAL:
        raise FetchError(f"official weights {name!r} are unknown; known: {', '.join(OFFICIAL)}")
    return OFFICIAL[name]


def weights_directory() -> Path:
    """Where fetched files are kept: `weights` in the asset directory."""
    return asset_directory() / "weights"


def fetched_file(weights: OfficialWeights, directory: Path) -> Path | None:
    """The file if it is there and passes its check."""
    path = directory / weights.file_name
    try:
        with path.open("rb") as file:
            return path if weights.is_it(hashlib.file_digest(file, "sha256").hexdigest()) else None
    except OSError:
        return None


def fetch(weights: OfficialWeights, directory: Path, *, timeout_s: float = 30.0,
          on_progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Downloads a file, unless a sound one is there. It appears under its name only after its check.

    Args:
        weights: which.
        directory: made if it is not there.
        timeout_s: longest silence of the server.
        on_progress: called with bytes received and expected (0 if the server does not say).

    Raises:
        FetchError: no network, another answer, another file.
    """
    if (path := fetched_file(weights, directory)) is not None:
        return path
    path = directory / weights.file_name
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        sha256 = _download(weights, unfinished, timeout_s, on_progress)
        if not weights.is_it(sha256):
            raise FetchError(f"{weights.url}: the file received has SHA-256 {sha256}, expected {weights.sha256} "
                             f"({weights.check}); it was thrown away. Try again; if it stays so, do not use it")
        unfinished.replace(path)
    # URLError, timeouts and refused connections are OSErrors.
    except (OSError, HTTPException) as error:
        raise FetchError(f"{weights.url}: not fetched ({error}). Without a network: download it on another machine, "
                         f"check sha256sum against {weights.sha256} ({weights.check}), and put it at {path}, or give "
                         f"it to mmdg import-weights --layout {weights.layout} directly") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _download(weights: OfficialWeights, unfinished: Path, timeout_s: float,
              on_progress: Callable[[int, int], None]) -> str:
    if not weights.url.startswith(("https://", "http://")):
        raise FetchError(f"{weights.url}: only http and https are fetched; correct the table of official weights")
    digest, received = hashlib.sha256(), 0
    with urllib.request.urlopen(weights.url, timeout=timeout_s) as answer, unfinished.open("wb") as file:  # noqa: S310
        stated = answer.headers.get("Content-Length") or ""
        expected = int(stated) if stated.isdecimal() else 0
        while chunk := answer.read(_CHUNK_BYTES):
            received += len(chunk)
            if received > MAX_BYTES:
                raise FetchError(f"{weights.url}: more than {MAX_BYTES} bytes; this is another file, nothing was kept")
            digest.update(chunk)
            file.write(chunk)
            on_progress(received, expected)
    if expected and received != expected:
        raise FetchError(f"{weights.url}: {received} of {expected} bytes received; the connection broke: try again")
    return digest.hexdigest()
