"""`python -m leo_lightning.pretrain`: train a backbone on the images of the training classes."""

import signal
import sys

from leo_lightning.allocator import keep_freed_memory
from leo_lightning.command import trainer_exit_code
from leo_lightning.errors import InputError
from leo_lightning.shorthand import with_defaults


def main(argv: list[str] | None = None) -> int:
    """Run a command; see `trainer_exit_code`."""
    return trainer_exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(args: list[str]) -> None:
    from leo_lightning.pretrain.command import PretrainCommand

    if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
        raise InputError("name a command, fit or validate, before the flags; see --help")
    if args[0] not in ("-h", "--help"):
        args = with_defaults(args, PretrainCommand.subcommands(), PretrainCommand.fits, None, "pretrain")
    PretrainCommand(args)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C before a run listens ends the process as shells expect.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    keep_freed_memory()
    sys.exit(main())
