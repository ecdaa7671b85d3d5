"""One decoder under atheris (libFuzzer): `python -m tests.fuzz.atheris_run TARGET CORPUS_FOLDER [libFuzzer options]`.

Coverage of the project's own code steers it; the corpus folder is filled with the target's seeds first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["pipeline", "calibration", "capture", "mmdg_model"]):
        from tests.fuzz.decoders import TARGETS, attempt

    name, corpus = sys.argv[1], Path(sys.argv[2])
    target = next(target for target in TARGETS if target.name == name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], lambda data: attempt(target, data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
