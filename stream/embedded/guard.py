"""Runs one server for a parent, and takes it and its files away when either ends.

    python guard.py FOLDER SHM_PREFIX GRACE_S COMMAND [ARG ...]

The parent holds the other end of standard input. End of file there means that the parent stopped the server or
died in whatever way, SIGKILL included. Imports nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import select
import shutil
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def _in_child() -> None:
    """Take the defaults back that the guard gave up, and die when the guard dies."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(folder: str, shm_prefix: str, grace_s: float, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_in_child, process_group=0)
    exited = os.pidfd_open(child.pid)
    select.select([sys.stdin, exited], [], [])
    parent_done = child.poll() is None
    if parent_done:
        child.terminate()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    # A server that was killed leaves its own children behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    if shm_prefix:
        for path in glob.glob(f"/dev/shm/{glob.escape(shm_prefix)}*"):  # noqa: S108
            os.unlink(path)
    # After a parent's restart() the folder still matters; it says so by a byte before the end of file.
    if parent_done and not sys.stdin.buffer.read(1):
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if parent_done else child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
