"""Ctrl-C while a command line starts: torch takes seconds to import."""

import signal


def end_silently() -> None:
    """Let Ctrl-C end the process without a word, where it would show a traceback, until cli.run
    takes over.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
