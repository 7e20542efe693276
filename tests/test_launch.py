"""How a command line begins."""

import os
import subprocess
import sys

import pytest

from launch import LARGE_PAGES, RESTARTED
from tests.test_architecture import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
SCRIPT = """\
import os, sys, launch
{before}
launch.before_torch()
print(sys.argv[1:], sys.stdin.read(), os.environ.get("GLIBC_TUNABLES"))
"""


def run(code, *arguments, **environment):
    clean = os.environ.keys() - LARGE_PAGES.keys() - RESTARTED.keys()
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={name: os.environ[name] for name in clean} | environment,
        input="typed",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_begins_again_with_the_same_arguments_and_input():
    result = run(SCRIPT.format(before=""), "-o", "a b.png")
    assert result.stdout == "['-o', 'a b.png'] typed glibc.malloc.hugetlb=1\n"


@pytest.mark.parametrize(
    "before",
    [
        "sys.executable = ''",
        "sys.executable = '/nowhere'",
        "sys.modules['torch'] = None",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
)
def test_it_goes_on_where_it_cannot_begin_again(before):
    result = run(SCRIPT.format(before=before))
    assert result.returncode == 0 and result.stdout.startswith("[] typed")


def test_it_begins_again_only_once_and_keeps_what_is_set():
    code = "import os; del os.environ['GLIBC_TUNABLES']\n" + SCRIPT.format(before="")
    assert run(code, GLIBC_TUNABLES="x", **RESTARTED).stdout == "[] typed None\n"
    assert run(SCRIPT.format(before=""), GLIBC_TUNABLES="x").stdout == "[] typed x\n"


def test_the_library_does_not_begin_anything_again():
    code = "import os, slow, fast; print(os.environ.get('GLIBC_TUNABLES'))"
    assert run(code).stdout == "None\n"
