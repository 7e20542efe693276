"""What a command line does before torch is imported, which takes seconds."""

import os
import sys

import interrupt

# Linux: large tensors in pages of 2 MB. Convolutions of one image take about 6 % less time. glibc
# reads it when a process begins; what torch does of its own (THP_MEM_ALLOC_ENABLE) leaves gaps
# between tensors, which take a tenth more memory.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def before_torch() -> None:
    """Let Ctrl-C end the process without a word; and begin it again, once, to have large pages."""
    interrupt.end_silently()
    if sys.platform == "linux" and not LARGE_PAGES.keys() <= os.environ.keys():
        os.environ.update(LARGE_PAGES)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
