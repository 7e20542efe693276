"""Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys

import pytest

import interrupt
from tests.test_architecture import ROOT

COMMANDS = [
    ["predict.py"],
    ["train.py"],
    ["-m", "slow"],
    ["-m", "slow.explain"],
    ["-m", "fast.evaluate"],
    ["-m", "fast.export"],
    ["-m", "fast.convert"],
]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_ctrl_c_while_torch_is_imported_shows_no_traceback(command, tmp_path):
    # Found before the real one.
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    process = subprocess.run(
        [sys.executable, *command, "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("package", ["slow", "fast"])
def test_the_library_leaves_signals_alone(package):
    code = f"import signal, {package}; assert signal.getsignal(2) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupt.Terminated)],
)
def test_the_first_signal_is_deferred_and_a_later_one_is_not(number, error, monkeypatch):
    before, asked = signal.getsignal(number), []
    with pytest.raises(error) as second, interrupt.deferred(asked.append):
        signal.raise_signal(number)
        signal.raise_signal(number)  # at once: the same one from another sender
        assert [type(each) for each in asked] == [error]
        monkeypatch.setattr(interrupt, "ONE_SIGNAL", 0.0)
        signal.raise_signal(number)
    assert second.type is error and signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_are_ignored_where_another_process_decides():
    with interrupt.deferred(None):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
