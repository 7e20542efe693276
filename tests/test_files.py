import os
import signal
import subprocess
import sys

import pytest

from media import claimed, files

POSIX = pytest.mark.skipif(files.fcntl is None, reason="there are no locks")


def test_a_file_is_claimed_once_until_the_end(tmp_path):
    path, lock = tmp_path / "a.mp4", tmp_path / ".a.mp4.lock"
    with claimed(path):
        with pytest.raises(ValueError, match="a.mp4: another run is writing it"), claimed(path):
            pass
        assert lock.exists() or files.fcntl is None
        with claimed(tmp_path / "b.mp4"):
            pass
    assert not lock.exists()
    with pytest.raises(KeyError), claimed(path):
        raise KeyError
    with claimed(path):
        pass
    assert not path.exists() and not lock.exists()


def test_where_there_are_no_locks_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with claimed(tmp_path / "a.mp4"):
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match="another run"), claimed(tmp_path / "a.mp4"):
            pass


@POSIX
def test_a_claim_ends_with_its_process_even_if_that_leaves_children(tmp_path):
    path = tmp_path / "a.mp4"
    hold = """
import os, sys, time
from pathlib import Path
from media import claimed
with claimed(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", hold, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        try:
            with pytest.raises(ValueError, match="another run"), claimed(path):
                pass
            assert (tmp_path / ".a.mp4.lock").exists()
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(child, 0)  # it lives
            with claimed(path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
