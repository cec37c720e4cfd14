"""Train, evaluate and use few-shot learners: `python train.py --help`."""

import sys

from leo_lightning.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
