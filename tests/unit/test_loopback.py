"""Requests to our own servers never meet a proxy, whatever the environment says."""

import ast
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.engine.adapters import adapter_for
from memgap.loopback import HOSTS, fetch, without_proxy
from memgap.session.profile import ProfileMoment
from memgap.telemetry.sampler import fetch_page
from tests.support.loadtests import loadtest_config, measure, needs_locust
from tests.support.records import small_study
from tests.support.sessions import run_all

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = {"urllib.request", "urllib3", "requests", "httpx", "aiohttp", "pycurl"}
"""What looks at the environment for proxies; http.client does not."""
ALLOWED = {
    "src/memgap/loopback.py": "the helper",
    "src/memgap/models/hub.py": "the hub is elsewhere, where a proxy may be needed",
    "src/memgap/kinds/locust/locustfile.py": "Locust's own client, told to look at no environment",
}


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of what a file imports, modules and names from modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_nothing_asks_a_server_but_by_the_helper() -> None:
    found = {
        str(path.relative_to(REPOSITORY))
        for folder in ("src", "workflow", "benchmarks", "tests")
        for path in (REPOSITORY / folder).rglob("*.py")
        if CLIENTS & set(imported(path))
    }
    assert found <= {*ALLOWED}, "use memgap.loopback.fetch"
    assert "src/memgap/loopback.py" in found


def test_locust_looks_at_no_environment() -> None:
    tree = ast.parse((REPOSITORY / "src/memgap/kinds/locust/locustfile.py").read_text())
    assert "self.client.trust_env = False" in [
        ast.unparse(one) for one in ast.walk(tree) if isinstance(one, ast.Assign)
    ]


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked with 200, as a proxy's own pages do."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.do_GET
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["dead", "answers"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Set the environment's proxies, and yield what the proxy was asked for."""
    _Proxy.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    port = server.server_address[1] if request.param == "answers" else 9
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "localhost,.example")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield _Proxy.seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_session_with_a_proxy_in_the_environment(tmp_path: Path, proxy: list[str]) -> None:
    run_all(small_study(batch_cap=1, load={"requests": 2, "warmup_requests": 1}), tmp_path / "results")
    (point,) = [json.loads(path.read_text()) for path in tmp_path.rglob("point.json")]
    assert point["status"] == "ok" and point["engine"]["version"] and point["engine"]["kv_pool_tokens"]
    assert proxy == []


@needs_locust
def test_a_load_test_with_a_proxy_in_the_environment(tmp_path: Path, proxy: list[str]) -> None:
    measure(loadtest_config(), tmp_path)
    points = [json.loads(path.read_text()) for path in tmp_path.rglob("point.json")]
    assert points and all(point["summary"]["requests_completed"] == 8 for point in points)
    assert proxy == []


class _Server(http.server.BaseHTTPRequestHandler):
    """A server of ours: every GET and POST is noted and answered with a page of one metric."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        body = b'{"success": true}' if self.command == "POST" else b"a_metric 1\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ours() -> Iterator[str]:
    _Server.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_way_to_ask_goes_straight_to_the_server(proxy: list[str], ours: str) -> None:
    assert fetch_page(ours, 5) == {"a_metric": [({}, 1.0)]}
    for engine in ("vllm", "sglang", "mock"):
        assert adapter_for(engine).reset_prefix_cache(ours, "key")
    moment = ProfileMoment([ours], "key", {"after_s": 0.0, "seconds": 0.0}, [b"{}"])
    moment._run()
    assert moment.error is None
    assert {"/metrics", "/reset_prefix_cache", "/flush_cache?timeout=5", "/start_profile", "/stop_profile"} <= set(
        _Server.seen
    )
    assert proxy == []


def test_whatever_goes_wrong_is_an_oserror(ours: str) -> None:
    assert fetch(f"{ours}/x", 5) == (200, b"a_metric 1\n")
    with pytest.raises(OSError):
        fetch("http://127.0.0.1:9/x", 5)

    class Broken(_Server):
        def do_GET(self) -> None:
            self.wfile.write(b"this is no HTTP\r\n\r\n")

    server = http.server.HTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with pytest.raises(OSError):
        fetch(f"http://127.0.0.1:{server.server_address[1]}/x", 5)
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"PATH": "/bin"}, None),
        ({"PATH": "/bin", "no_proxy": "a"}, None),
        ({"http_proxy": "http://p:1"}, ",".join(HOSTS)),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost, .site"}, "localhost,.site,127.0.0.1,::1"),
        ({"all_proxy": "socks5://p:1", "no_proxy": "127.0.0.1"}, "127.0.0.1,localhost,::1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
        ({"http_proxy": "http://p:1", "no_proxy": " * ", "NO_PROXY": ""}, "*"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, b"}, "a,b,127.0.0.1,localhost,::1"),
    ],
)
def test_programs_that_are_started_get_the_hosts_too(given: dict[str, str], expected: str | None) -> None:
    made = without_proxy(given)
    assert made == (given if expected is None else {**given, "no_proxy": expected, "NO_PROXY": expected})


def test_either_spelling_keeps_what_it_says() -> None:
    made = without_proxy({"http_proxy": "http://p:1", "no_proxy": "a", "NO_PROXY": "*"})
    assert (made["no_proxy"], made["NO_PROXY"]) == ("a,127.0.0.1,localhost,::1", "*")
