"""Train, evaluate and use few-shot learners: `python train.py --help`."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C before a run listens, as in the seconds of importing, ends the process as shells expect.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from leo_lightning.startup import import_torchmetrics

import_torchmetrics()

from leo_lightning.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
