"""Runs of `compare` and `sweep` without their start-up: forks of the server of `tests.child`.

`test_local_run.py` tests the launcher that users have, which starts an interpreter for each run.
"""

import signal
from collections.abc import Sequence
from pathlib import Path

from tests import child


class ForkedRun:
    """A verb in a fork. What it has written is appended to its files when it is over."""

    def __init__(self, words: Sequence[str], output: Path, errors: Path) -> None:
        self._child = child.start(*words)
        self._files = [output, errors]

    def state(self) -> str:
        if self._child.poll() is None:
            return "running"
        while self._files:
            text = self._child.output()[-len(self._files)]
            with self._files.pop(0).open("a") as opened:
                opened.write(text)
        return "over"

    def code(self) -> int | None:
        code = self._child.returncode
        return code if code is not None and 0 <= code <= 128 else None

    def end(self) -> str:
        return "it was killed"

    def stop(self) -> None:
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._child.kill()

    def close(self) -> None:
        pass


def start(
    launcher: object, folder: Path, name: str, words: Sequence[str], output: Path, errors: Path
) -> ForkedRun:
    """Take the place of `LocalLauncher.start`."""
    return ForkedRun(words, output, errors)
