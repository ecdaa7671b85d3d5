"""The process of one job on made-up data: `python -m tests.mmdg_model.training.toy_job JOBDIR`."""

import sys

from mmdg_model.training.job import main
from tests.mmdg_model.training.toy_benchmark import ToyAssembly

if __name__ == "__main__":
    sys.exit(main(ToyAssembly()))
