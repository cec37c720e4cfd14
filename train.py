"""Train, evaluate and use few-shot learners: `python train.py --help`."""

import os
import signal
import sys

# The matrices are small: a second thread saves a fifth on an idle machine, and ruins a busy one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C before a run listens, as in the seconds of importing, ends the process as shells expect.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from leo_lightning.allocator import keep_freed_memory
from leo_lightning.startup import import_torchmetrics

keep_freed_memory()
import_torchmetrics()

from leo_lightning.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
