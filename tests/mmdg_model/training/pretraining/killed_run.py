"""A toy run in a process of its own, to be killed: saves after every update, tells each, and never ends by itself."""

import sys
from pathlib import Path

import torch

from mmdg_model.training.pretraining.config import changed
from mmdg_model.training.pretraining.pretrain import PretrainingSource, pretrain
from tests.mmdg_model.training.pretraining.builders import toy_config


def main(root, path, kill_at):
    torch.set_num_threads(1)

    def tell(done, total, scalars):
        if done == kill_at:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
            sys.stdin.read()  # until killed

    pretrain(changed(toy_config()), PretrainingSource(root=Path(root), lists=Path(root) / "lists"), Path(path),
             save_every_s=0.0, on_update=tell)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
