"""The mock engine as a process, seen through the standard library's HTTP client."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from memgap.mock_server.launch import MockServer
from tests.support.waiting import LAST_RESORT_S, until


@pytest.fixture(scope="module")
def server() -> Iterator[MockServer]:
    with MockServer("--step-base-ms", "1", "--api-key", "secret", "--max-model-len", "512") as mock:
        yield mock


def _ask(
    url: str, path: str, body: Any = None, key: str | None = "secret", method: str | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=LAST_RESORT_S)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method or ("GET" if data is None else "POST"), path, data, headers)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    return reply.status, text


def _events(text: bytes) -> list[Any]:
    blocks = text.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_completion_stream_has_ids_usage_and_reason(server: MockServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": "mock", "prompt": [5, 6, 7], "max_tokens": 4, "stream": True, "stream_options": options}
    status, text = _ask(server.url, "/v1/completions", {**body, "return_token_ids": True})
    events = _events(text)
    assert status == 200
    assert [event["usage"]["completion_tokens"] for event in events] == [1, 2, 3, 4, 4]
    assert all(event["usage"]["prompt_tokens"] == 3 for event in events)
    choices = [event["choices"][0] for event in events[:-1]]
    assert events[-1]["choices"] == []
    assert choices[0]["prompt_token_ids"] == [5, 6, 7]
    assert [len(choice["token_ids"]) for choice in choices] == [1] * 4
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]


def test_plain_stream_has_neither_ids_nor_usage(server: MockServer) -> None:
    _, text = _ask(server.url, "/v1/completions", {"prompt": "a b c", "max_tokens": 3, "stream": True})
    events = _events(text)
    assert len(events) == 3
    assert all("usage" not in event and event["choices"][0]["token_ids"] is None for event in events)


def test_chat_stream_opens_with_a_role(server: MockServer) -> None:
    body = {"messages": [{"role": "user", "content": "two words"}], "max_tokens": 2, "stream": True}
    _, text = _ask(server.url, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    first, *middle, last = _events(text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["delta"]["content"] for event in middle)
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_whole_replies(server: MockServer) -> None:
    _, text = _ask(server.url, "/v1/completions", {"prompt": [1, 2], "max_tokens": 3, "return_token_ids": True})
    reply = json.loads(text)
    assert reply["usage"]["completion_tokens"] == len(reply["choices"][0]["token_ids"]) == 3
    body = {"messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 2}
    _, text = _ask(server.url, "/v1/chat/completions", body)
    assert json.loads(text)["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ({"prompt": []}, 400),
        ({"prompt": [1] * 512}, 400),
        ({"prompt": [1], "max_tokens": 512}, 400),
        ({"prompt": [1], "max_tokens": 0}, 400),
        ({"prompt": [1], "model": "other"}, 404),
    ],
)
def test_refused_requests_say_why(server: MockServer, body: Any, status: int) -> None:
    got, text = _ask(server.url, "/v1/completions", body)
    assert got == status
    assert json.loads(text)["error"]["message"]


def test_key_is_asked_for_where_vllm_asks(server: MockServer) -> None:
    assert _ask(server.url, "/v1/models", key=None)[0] == 401
    assert _ask(server.url, "/v1/completions", {"prompt": [1]}, key="wrong")[0] == 401
    assert _ask(server.url, "/health", key=None) == (200, b"")
    assert _ask(server.url, "/metrics", key=None)[0] == 200
    assert json.loads(_ask(server.url, "/version", key=None)[1])["version"].startswith("mock-")
    assert json.loads(_ask(server.url, "/v1/models")[1])["data"][0]["max_model_len"] == 512
    assert _ask(server.url, "/nothing")[0] == 404
    assert _ask(server.url, "/v1/completions")[0] == 405


def test_connection_is_kept_for_the_next_request(server: MockServer) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=LAST_RESORT_S)
    connection.request("GET", "/health")
    connection.getresponse().read()
    first = connection.sock
    connection.request("POST", "/v1/completions", b'{"prompt":[1]}', {"Authorization": "Bearer secret"})
    assert connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_metrics_have_the_names_and_labels_of_vllm() -> None:
    with MockServer("--step-base-ms", "1", "--kv-tokens", "64", "--max-model-len", "60") as mock:
        _ask(mock.url, "/v1/completions", {"prompt": [1] * 10, "max_tokens": 7})
        page = _ask(mock.url, "/metrics")[1].decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    values = {(one.name, one.labels.get("finished_reason")): one.value for one in samples}
    assert values["vllm:prompt_tokens_total", None] == 10
    assert values["vllm:generation_tokens_total", None] == 7
    assert values["vllm:request_success_total", "length"] == 1
    assert values["vllm:num_requests_running", None] == values["vllm:num_requests_waiting", None] == 0
    assert values["vllm:kv_cache_usage_perc", None] == values["vllm:num_preemptions_total", None] == 0
    for sample in samples:
        assert sample.labels["engine"] == "0"
        assert sample.name == "vllm:cache_config_info" or sample.labels["model_name"] == "mock"
    config = next(one.labels for one in samples if one.name == "vllm:cache_config_info")
    assert (config["block_size"], config["num_gpu_blocks"]) == ("16", "4")


def test_stamps_name_each_token_once(tmp_path: Path) -> None:
    file = tmp_path / "stamps.npz"
    with MockServer("--step-base-ms", "1", "--stamp-file", str(file), "--fault", "coalesce:2") as mock:
        _ask(mock.url, "/v1/completions", {"prompt": [1], "max_tokens": 5, "stream": True})
        assert mock.stop() == 0
    with np.load(file, allow_pickle=False) as stamps:
        assert stamps["token"].tolist() == [0, 1, 2, 3, 4]
        assert stamps["request"].tolist() == [0] * 5
        assert (np.diff(stamps["time_ns"]) >= 0).all()
        assert len(stamps["request_id"]) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--fault", "fail-start"], "Engine core initialization failed"),
        (["--fault", "oom-start"], "CUDA out of memory"),
        (["--kv-tokens", "64", "--max-model-len", "100"], "does not fit into the KV cache"),
    ],
)
def test_failed_start_leaves_its_reason_and_status_one(arguments: list[str], line: str) -> None:
    with pytest.raises(RuntimeError, match=line):
        MockServer(*arguments)


def test_bad_command_line_is_one_sentence_and_status_two() -> None:
    command = [sys.executable, "-m", "memgap.mock_server", "--port", "0", "--model", "m", "--fault", "what"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LAST_RESORT_S)
    assert done.returncode == 2
    assert "unknown kind 'what'" in done.stderr
    assert "Traceback" not in done.stderr


def test_hang_on_term_needs_a_kill() -> None:
    with MockServer("--fault", "hang-on-term", patience_s=0.3) as mock:
        mock.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert _ask(mock.url, "/health")[0] == 200
        assert mock.stop() == -signal.SIGKILL


def test_child_outlives_the_engine_in_its_process_group() -> None:
    with MockServer("--spawn-child") as mock:
        assert mock.child_pid is not None
        assert os.getpgid(mock.child_pid) == mock.process.pid
        assert mock.stop() == 0
        os.kill(mock.child_pid, 0)
        mock.kill()


def test_stalled_metrics_answer_late_while_health_does_not() -> None:
    with MockServer("--fault", "stalled-metrics:0.3") as mock:
        start = time.monotonic()
        assert _ask(mock.url, "/health")[0] == 200
        assert _ask(mock.url, "/metrics")[0] == 200
        assert time.monotonic() - start >= 0.3


def test_client_that_leaves_is_taken_out_of_the_batch() -> None:
    with MockServer("--step-base-ms", "5") as mock:
        connection = http.client.HTTPConnection(urlsplit(mock.url).netloc, timeout=LAST_RESORT_S)
        connection.request("POST", "/v1/completions", b'{"prompt":[1],"max_tokens":4000,"stream":true}')
        connection.getresponse().read(10)
        connection.close()
        until(lambda: b'finished_reason="abort"} 1.0' in _ask(mock.url, "/metrics")[1])
