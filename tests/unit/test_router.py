"""The router over real sockets: replies pass unchanged, a client that leaves is let go, members that fail are said."""

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memgap.engine.prometheus import Page, parse_page
from memgap.host.ports import free_port
from memgap.host.supervised import Supervised
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run
from memgap.loopback import answers, fetch
from memgap.mock_server.launch import MockServer
from tests.support.loads import status_counts
from tests.support.waiting import until

ASK = json.dumps({"model": "mock", "prompt": [1, 2, 3], "max_tokens": 4, "stream": True}).encode()


@contextmanager
def routed(folder: Path, *members: str, policy: str = "round-robin") -> Iterator[str]:
    port = free_port()
    given = [part for one in members for part in ("--member", one)]
    command = [sys.executable, "-m", "memgap.router", "--port", str(port), "--policy", policy, *given]
    process, url = Supervised(command, folder / "router.log", {}), f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{url}/health"))
        yield url
    finally:
        process.stop()


def page(url: str) -> Page:
    return parse_page(fetch(f"{url}/metrics", 10)[1].decode())


def count(url: str, name: str, **labels: str) -> float:
    """Return a metric of the router or of a server, summed over what has these labels."""
    return sum(value for its, value in page(url).get(name, []) if labels.items() <= its.items())


def ask(url: str, body: bytes = ASK) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_replies_pass_unchanged_and_each_member_gets_its_turn(tmp_path: Path) -> None:
    prompts = [Prompt(8, [1, 2, 3, index]) for index in range(24)]
    plan = LoadPlan(model="mock", arrival="closed", requests=24, concurrency=4)
    with MockServer() as one, MockServer() as other, routed(tmp_path, f"a={one.url}", f"b={other.url}") as url:
        result = run(plan, prompts, [url])
        assert status_counts(result.results) == {"ok": 24}
        assert {one.output_tokens for one in result.results} == {8}
        for name, server in (("a", one), ("b", other)):
            assert count(url, "memgap_router_sent_total", member=name) == 12
            assert count(server.url, "vllm:generation_tokens_total") == 96
        assert count(url, "memgap_router_outstanding") == 0
        whole = json.dumps({"model": "mock", "prompt": [1, 2, 3], "max_tokens": 4}).encode()
        assert json.loads(ask(url, whole)[1])["usage"]["completion_tokens"] == 4
        assert ask(url, b"{}")[0] == 400
        assert json.loads(fetch(f"{url}/v1/models", 5)[1])["data"][0]["id"] == "mock"


def test_a_client_that_leaves_takes_its_request_along(tmp_path: Path) -> None:
    slow = json.dumps({"model": "mock", "prompt": [1], "max_tokens": 2000, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(slow)}\r\n\r\n".encode()
    with MockServer() as server, routed(tmp_path, f"a={server.url}") as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(head + slow)
            assert client.recv(4096)
            assert count(server.url, "vllm:num_requests_running") == 1
        until(lambda: count(server.url, "vllm:num_requests_running") == 0)
        assert count(url, "memgap_router_outstanding") == 0


def test_a_member_that_is_gone_is_a_502_and_one_that_breaks_off_is_no_whole_reply(tmp_path: Path) -> None:
    with MockServer("--fault", "break-stream:2") as server, routed(tmp_path, f"a={server.url}") as url:
        assert ask(url)[0] == 200
        try:
            broken = ask(url)
        except (http.client.HTTPException, OSError):
            broken = (0, b"")
        assert not broken[1].endswith(b"[DONE]\n\n")
        server.kill()
        until(lambda: ask(url)[0] == 502)
        status, body = ask(url)
        assert status == 502
        assert json.loads(body)["error"]["message"].startswith("router: a: ")
        assert count(url, "memgap_router_failed_total", member="a") >= 2


def test_a_prefill_server_that_is_gone_or_refuses_is_said(tmp_path: Path) -> None:
    with MockServer() as prefill, MockServer() as decode:
        members = f"p:prefill={prefill.url}", f"d:decode={decode.url}"
        with routed(tmp_path, *members, policy="nixl-pull") as url:
            assert ask(url)[1].count(b"data: {") == 4
            assert ask(url, b'{"model": "other", "prompt": [1]}')[0] == 502
            prefill.kill()
            until(lambda: ask(url)[0] == 502)
            assert "p: " in json.loads(ask(url)[1])["error"]["message"]
