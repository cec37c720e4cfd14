"""closed_pipe: output that nobody reads any more, as after `| head`."""

import os
import select


def drop_unread_output() -> bool:
    """Point stdout and stderr to nowhere if they are pipes whose reader has gone; return whether one was."""
    gone = False
    for stream in (1, 2):
        poll = select.poll()
        poll.register(stream, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)
            gone = True
    return gone
