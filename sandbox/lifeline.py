"""What a Lambda child runs: the runtime, and a watch on the pipe that says its parent lives.

Run as a file, with `python -P`, so that nothing of the sandbox is importable through it.
"""

import os
import sys
from threading import Thread


def end_with_parent() -> None:
    # The parent holds the only other end: this returns when it is gone, however it went.
    os.read(0, 1)
    os._exit(0)


if __name__ == "__main__":
    Thread(target=end_with_parent, daemon=True).start()
    sys.path.insert(0, os.getcwd())  # noqa: PTH109

    from awslambdaric.__main__ import main  # type: ignore[import-untyped]

    main(sys.argv)
