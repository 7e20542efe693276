"""What a command line does before torch is imported, which takes seconds."""

import os
import sys
import threading
from contextlib import suppress

import interrupt

# Linux: large tensors in pages of 2 MB. Convolutions of one image take about 6 % less time. glibc
# reads it when a process begins. torch's own option (THP_MEM_ALLOC_ENABLE) leaves gaps between
# tensors, which cost a tenth more memory.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Our own marker: some systems strip GLIBC_TUNABLES, and without it the program would restart for
# ever.
RESTARTED = {"STYLE_TRANSFER_RESTARTED": "1"}


def is_command_of(package: str) -> bool:
    """Whether this is python -m with one of a package's command lines."""
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv:
        return False
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return module.split(".")[0] == package


def before_torch() -> None:
    """Let Ctrl-C end the process silently, and restart it once to get large pages.

    It is not restarted where it is already doing other things, as in a notebook.
    """
    interrupt.end_silently()
    is_set = os.environ.keys() & (LARGE_PAGES | RESTARTED).keys()
    is_fresh = "torch" not in sys.modules and threading.active_count() == 1
    if sys.platform == "linux" and sys.executable and is_fresh and not is_set:
        os.environ.update(LARGE_PAGES | RESTARTED)
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
