"""A child server: started under a guard, health-checked, stopped, restarted on the same port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from pathlib import Path

from stream.embedded import guard
from stream.errors import EmbeddedError

READY_TIMEOUT_S = 60.0
_LOG_TAIL_LINES = 25


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Server(ABC):
    """One real server as a child process. `start` does not wait; `wait_ready` does."""

    name: str
    shm_prefix = ""
    grace_s = 5.0
    """Seconds from SIGTERM to SIGKILL."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.gettempdir()) / f"image-score-{self.name}-{uuid.uuid4().hex[:12]}"
        self.log = self.folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line; files go under `self.folder`."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Say whether the server answers; called every few milliseconds until it does."""

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def pid(self) -> int:
        """The server's own process id (not its guard's)."""
        assert self._process is not None
        return children(self._process.pid)[0]

    @property
    def exit_code(self) -> int | None:
        """How the server ended by itself; None while it runs, or when it was not started."""
        return self._process.poll() if self._process else None

    @property
    def started(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End the server at once, as a crash would; `stop` or `restart` comes after it."""
        with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
            os.kill(self.pid, signal.SIGKILL)

    def start(self) -> None:
        """Start the process; `folder` is made, and goes when the process is stopped or its parent ends."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            command = self.command()
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        arguments = [sys.executable, "-E", "-S", guard.__file__, str(self.folder), self.shm_prefix, str(self.grace_s)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*arguments, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,  # Ctrl-C reaches us alone; we then stop the server in order
            )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when the server answers.

        Raises:
            EmbeddedError: it ended, or did not answer in time; the message ends with its log's tail.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self._process.poll() is not None:
                raise self._failed(f"ended with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"did not answer within {timeout_s:.0f} s")
            time.sleep(0.02)

    def _failed(self, what: str) -> EmbeddedError:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        self.stop()
        tail = "\n  ".join(lines) or "(nothing)"
        return EmbeddedError(f"embedded {self.name} {what}. The end of its log:\n  {tail}")

    def stop(self, keep_files: bool = False) -> None:
        """Stop the server and remove its files, unless `keep_files`. Stopping twice is allowed."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                if keep_files:
                    self._process.stdin.write(b"k")
                self._process.stdin.close()
            self._process.wait()
            self._process = None
        if not keep_files:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> None:
        """Stop and start again on the same port, with the same files."""
        self.stop(keep_files=True)
        self.start()
        self.wait_ready()
