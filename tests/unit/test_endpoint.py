"""A server that is there already is measured by its URL: nothing is started, stopped or guessed, no key is kept."""

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.datasets import build_dataset
from memgap.errors import UserError
from memgap.figures.endpoint import draw
from memgap.kinds.endpoint import WORDS, checked_url, words_of
from memgap.kinds.endpoint.tables import make
from memgap.loopback import fetch
from memgap.store.points import PointStore
from memgap.study.plan import plan_of
from memgap.study.study import Study, expand_study
from memgap.tables.inputs import Inputs
from tests.support.servers import make_server
from tests.support.sessions import run_all


def study(url: str, adapter: str = "openai", settings: dict[str, Any] | None = None, **fixed: Any) -> Study:
    config = {
        "engines": {"there": {"adapter": adapter}},
        "datasets": {
            "words": {"kind": "random", "requests": 600, "prompt_tokens": 12, "output_tokens": 6},
            "questions": {"kind": "texts", "requests": 6, "output_tokens": 6},
        },
        "collectors": {"interval_s": 0.05},
        "url": url,
        "endpoints": {
            "there": {
                "fixed": {"dataset": "words", "batch_cap": 2, "load": {"requests": 6, "warmup_requests": 1}, **fixed},
                **(settings or {}),
            }
        },
    }
    return expand_study(check_config(config))


def measured(there: Study, folder: Path) -> dict[str, Any]:
    run_all(there, folder / "results")
    (key,) = there.points
    point = PointStore(folder / "results/points").read(key)
    assert point is not None
    return point


@contextmanager
def relay(to: str, prefix: str, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Pass requests below a prefix on to a server, over TLS where there is a context; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _pass_on(self, body: bytes | None) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
            try:
                status, data = fetch(to + self.path.removeprefix(prefix), 60, body, headers)
            except OSError as error:
                status, data = getattr(error, "code", 502), str(error).encode()
            kind = "application/json" if body is None else "text/event-stream"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_is_measured_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_server(tmp_path) as server:
        server.start()
        monkeypatch.setenv("THE_KEY", server.api_key)
        there = study(server.url, settings={"key_variable": "THE_KEY"})
        point = measured(there, tmp_path)
        assert server.alive
        assert point["status"] == "ok"
        assert point["summary"]["requests_completed"] == 6
        assert point["summary"]["output_tokens"] == 36
        assert point["engine"]["served_model"] == "tiny-opt"
        told = {name: point["engine"][name] for name in ("kv_pool_tokens", "weights_bytes", "start_s")}
        assert set(told.values()) == {None}
        assert point["hardware"]["gpu_name"] is None
        assert "num_requests_running" not in json.dumps(point["summary"])
        assert "gpu_util_mean_fraction" not in point["summary"] and "cpu_util_mean_fraction" not in point["summary"]
        assert point["provenance"]["commands"] == []
        for path in (tmp_path / "results").rglob("*"):
            assert not path.is_file() or server.api_key.encode() not in path.read_bytes(), path
        table = make(Inputs(plan=plan_of(there, "group", "there"), points=tmp_path / "results/points"))["endpoint"]
        assert table["model"].tolist() == ["tiny-opt"]
        believed = table.assign(verdict="valid")  # a busy machine may make this one doubtful
        figure, numbers = draw(Inputs({"endpoints.endpoint": believed}))
        assert numbers["asked"].tolist() == [2]
        assert "1 points" in figure.get_supxlabel()


def test_texts_go_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_server(tmp_path) as server:
        server.start()
        monkeypatch.setenv("THE_KEY", server.api_key)
        there = study(server.url, settings={"key_variable": "THE_KEY"}, dataset="questions")
        point = measured(there, tmp_path)
    assert point["status"] == "ok", point["error"]
    (spec,) = there.datasets.values()
    asked = [one.text or "" for one in build_dataset(spec)]
    assert point["summary"]["prompt_tokens"] == sum(len(one.split()) for one in asked)
    assert point["summary"]["requests_cut"] == 6


def test_metrics_are_read_where_the_engine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_server(tmp_path) as server:
        server.start()
        monkeypatch.setenv("THE_KEY", server.api_key)
        load = {"requests": 600, "warmup_requests": 1}
        there = study(server.url, "vllm", settings={"key_variable": "THE_KEY"}, load=load)
        point = measured(there, tmp_path)
    assert point["summary"]["mean_running_reqs"] > 0
    assert point["summary"]["server_output_tokens"] == 3600


def test_a_prefix_and_tls_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *extension], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with make_server(tmp_path) as server:
        server.start()
        monkeypatch.setenv("THE_KEY", server.api_key)
        with relay(server.url, "/team/llm", context) as url:
            point = measured(study(f"{url}/v1/", settings={"key_variable": "THE_KEY"}), tmp_path)
    assert point["status"] == "ok", point["error"]
    assert point["record"]["server"]["url"].endswith("/team/llm")


def test_a_server_that_is_not_there_or_serves_another_model_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = measured(study("http://127.0.0.1:9"), tmp_path / "gone")
    assert gone["status"] == "unreachable"
    assert "http://127.0.0.1:9/v1/models does not answer" in gone["error"]["message"]
    with make_server(tmp_path) as server:
        server.start()
        monkeypatch.setenv("THE_KEY", server.api_key)
        other = measured(study(server.url, settings={"key_variable": "THE_KEY"}, model="llama"), tmp_path / "other")
        without_key = measured(study(server.url), tmp_path / "without")
    assert other["status"] == "bad_config"
    assert "serves tiny-opt, not llama" in other["error"]["message"]
    assert without_key["status"] == "unreachable"
    assert "401" in without_key["error"]["message"]


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE, which is not set; export it"):
        measured(study("http://127.0.0.1:9", settings={"key_variable": "NOT_SET_ANYWHERE"}), tmp_path)


@pytest.mark.parametrize(
    ("url", "hosts", "sentence"),
    [
        (None, [], "no server is named"),
        ("127.0.0.1:8000", [], "is not of the form"),
        ("ftp://127.0.0.1", [], "is not of the form"),
        ("http://127.0.0.1:99999", [], "is not of the form"),
        ("http://a:b@127.0.0.1", [], "holds a name or password"),
        ("http://gpu.example", [], "gpu.example is not this machine"),
        ("http://127.0.0.1.example:80", [], "is not this machine"),
        ("https://10.0.0.7/v1", ["10.0.0.8"], "10.0.0.7 is not this machine"),
    ],
)
def test_a_target_that_is_none_or_not_meant_is_refused(url: str | None, hosts: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        checked_url(url, hosts, "config: endpoints.there")


@pytest.mark.parametrize(
    ("url", "hosts", "base"),
    [
        ("http://localhost:8000/v1", [], "http://localhost:8000"),
        ("http://127.9.9.9:1/", [], "http://127.9.9.9:1"),
        ("http://[::1]:8000/x/v1/", [], "http://[::1]:8000/x"),
        ("https://llm.example/team", ["llm.example"], "https://llm.example/team"),
    ],
)
def test_the_base_of_an_address_is_kept(url: str, hosts: list[str], base: str) -> None:
    assert checked_url(url, hosts, "here") == base


def test_the_key_of_a_point_depends_on_what_is_known_of_the_server() -> None:
    first = set(study("http://127.0.0.1:1").points)
    assert first == set(study("http://127.0.0.1:1/v1").points)
    for other in (study("http://127.0.0.1:2"), study("http://127.0.0.1:1", model="llama")):
        assert not first & set(other.points)


def test_open_loops_and_words() -> None:
    there = study("http://127.0.0.1:1", load={"requests": 4, "arrival": "poisson", "rate_req_s": [1, 2]})
    assert [point.record["load"]["rate_req_s"] for point in there.points.values()] == [1.0, 2.0]
    assert words_of([0, 1, len(WORDS)]) == f"{WORDS[0]} {WORDS[1]} {WORDS[0]}"
    assert len(set(WORDS)) == len(WORDS)
    with pytest.raises(UserError, match="a closed loop needs `batch_cap`"):
        config = {"url": "http://127.0.0.1:1", "engines": {"there": {"adapter": "openai"}}}
        datasets = {"words": {"kind": "random", "requests": 4, "prompt_tokens": 2, "output_tokens": 2}}
        fixed = {"dataset": "words", "load": {"requests": 4}}
        expand_study(check_config({**config, "datasets": datasets, "endpoints": {"x": {"fixed": fixed}}}))


def test_the_commands_of_the_page_are_there() -> None:
    page = Path(__file__).parents[2] / "docs/endpoint.md"
    assert "--configfile config/endpoint.yaml --config url=" in page.read_text(encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, "-m", "memgap", "list", "--configfile", "config/endpoint.yaml"],
        cwd=page.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no server is named; give `--config url=http://127.0.0.1:8000`" in shown.stderr
