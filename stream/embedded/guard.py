"""Runs one server for a parent, and takes it and its files away when either ends.

    python guard.py FOLDER SHM_PREFIX COMMAND [ARG ...]

The parent holds the other end of standard input. End of file there means that the parent stopped the server or
died in whatever way, SIGKILL included. Imports nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import glob
import os
import select
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0


def _die_with_guard() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(folder: str, shm_prefix: str, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    restored = {"preexec_fn": _die_with_guard, "restore_signals": True}
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **restored)  # type: ignore[call-overload]
    exited = os.pidfd_open(child.pid)
    select.select([sys.stdin, exited], [], [])
    parent_done = child.poll() is None
    if parent_done:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if shm_prefix:
        for path in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):  # noqa: S108
            os.unlink(path)
    # After a parent's restart() the folder still matters; it says so by a byte before the end of file.
    if parent_done and not sys.stdin.buffer.read(1):
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if parent_done else child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
