"""A real OpenSearch, from Maven Central, for the tests that are about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from stream.embedded.server import Server, free_port
from stream.errors import EmbeddedError
from tests.real_kafka import ROOT

_POM = ROOT / "deploy" / "opensearch" / "pom.xml"
_FOLDER = ROOT / ".opensearch"
_NOBODY = 65534


def bring() -> Path:
    """Download OpenSearch once; return its folder.

    Raises:
        EmbeddedError: Maven failed; ends with what it said.
    """
    marker = _FOLDER / "complete"
    if not marker.exists() or marker.stat().st_mtime < _POM.stat().st_mtime:
        for goal in (["unpack", "-DincludeTypes=zip"], ["copy", "-DincludeTypes=jar"]):
            where = f"-DoutputDirectory={_FOLDER}"
            command = ["mvn", "-q", "-B", "-f", str(_POM), f"dependency:{goal[0]}-dependencies", goal[1], where]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise EmbeddedError(f"Maven could not bring OpenSearch:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        _add_module()
        marker.touch()
    return next(_FOLDER.glob("opensearch-*"))


def _add_module() -> None:
    """Make a module of the jar that has rank_feature."""
    module = next(_FOLDER.glob("opensearch-*")) / "modules" / "mapper-extras"
    module.mkdir(exist_ok=True)
    jar = next(_FOLDER.glob("mapper-extras-client-*.jar"))
    shutil.copy(jar, module)
    version = jar.stem.rpartition("-")[2]
    values = {
        "description": "rank_feature",
        "name": "mapper-extras",
        "classname": "org.opensearch.index.mapper.MapperExtrasPlugin",
        "version": version,
        "opensearch.version": version,
        "java.version": "11",
    }
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    (module / "plugin-descriptor.properties").write_text(text)


class SearchServer(Server):
    """One node; it refuses to run as root, so root runs it as nobody, from a copy that nobody may read."""

    name = "opensearch"
    grace_s = 20.0

    def __init__(self) -> None:
        super().__init__()
        self._home = bring()
        self.port = free_port()
        self._transport = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        home, config = self.folder / "home", self.folder / "config"
        if not home.exists():
            shutil.copytree(self._home, home, ignore=shutil.ignore_patterns("config"))
            (home / "logs").mkdir(exist_ok=True)
            shutil.copytree(self._home / "config", config)
            (config / "opensearch.yml").write_text(self._yaml())
        command = ["bash", str(home / "bin" / "opensearch")]
        if os.geteuid() != 0:
            return command
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, _NOBODY, _NOBODY)
        return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command]

    def _yaml(self) -> str:
        values = {
            "cluster.name": "image-score-test",
            "discovery.type": "single-node",
            "http.port": self.port,
            "transport.port": self._transport,
            "network.host": "127.0.0.1",
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        return "".join(f"{name}: {value}\n" for name, value in values.items())

    def environment(self) -> dict[str, str]:
        java = ["-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={self.folder}"]
        kept = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "ES_JAVA_OPTS")}
        return kept | {
            "OPENSEARCH_JAVA_OPTS": " ".join(java),
            "OPENSEARCH_PATH_CONF": str(self.folder / "config"),
            "OPENSEARCH_JAVA_HOME": _java_home(),
            "OPENSEARCH_TMPDIR": str(self.folder),
        }

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/_cluster/health")["status"] in ("green", "yellow")
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON that a request is answered with.

        Raises:
            HTTPError: the answer is an error.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


def _java_home() -> str:
    java = shutil.which("java")
    assert java is not None
    return str(Path(java).resolve().parents[1])
