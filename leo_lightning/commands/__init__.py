"""The verbs of `python -m leo_lightning VERB`: one file or folder for each."""

import sys

if sys.argv[:1] == ["-m"]:  # as runpy sets it while it imports the package of the module that was asked for
    print(
        "error: run `python -m leo_lightning VERB`; a module of a verb does nothing by itself",
        file=sys.stderr,
    )
    sys.exit(2)
