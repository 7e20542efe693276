"""What a command line does before torch is imported, which takes seconds."""

import os
import sys
import threading
from contextlib import suppress

import interrupt

# Linux: large tensors in pages of 2 MB. Convolutions of one image take about 6 % less time. glibc
# reads it when a process begins; what torch does of its own (THP_MEM_ALLOC_ENABLE) leaves gaps
# between tensors, which take a tenth more memory.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Set beside it, for some systems take the other out of the environment.
RESTARTED = {"STYLE_TRANSFER_RESTARTED": "1"}


def is_command_of(package: str) -> bool:
    """Whether python -m is on its way to one of a package's command lines."""
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv:
        return False
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return module.split(".")[0] == package


def before_torch() -> None:
    """Let Ctrl-C end the process without a word; and begin it again, once, to have large pages,
    unless it does other things already, as a notebook does.
    """
    interrupt.end_silently()
    is_set = os.environ.keys() & (LARGE_PAGES | RESTARTED).keys()
    is_fresh = "torch" not in sys.modules and threading.active_count() == 1
    if sys.platform == "linux" and sys.executable and is_fresh and not is_set:
        os.environ.update(LARGE_PAGES | RESTARTED)
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
