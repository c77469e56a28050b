"""Foreign and stored data, damaged: what reads it returns something, or one sentence says what is wrong."""

import contextlib
import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from memgap.advisor.files import read_advice, read_verifications
from memgap.advisor.verify import verification, verification_plan
from memgap.datasets import build_dataset, load_dataset, save_dataset
from memgap.datasets.sharegpt import read_conversations
from memgap.datasets.traces import read_trace as read_request_trace
from memgap.engine.vllm import LATENCY_HISTOGRAMS, VllmAdapter
from memgap.figures.paper import read_paper
from memgap.kinds.registry import session_of
from memgap.load import sse
from memgap.load.decode import ReplyDecoder, ReplyError
from memgap.load.http1 import parse_url
from memgap.models import resolve_model
from memgap.models.hf_config import from_hf_config, hf_config_dtype
from memgap.models.synthetic import tokenizer_json
from memgap.points.point import check_same_server
from memgap.profiling.kernel_trace import read_kernels
from memgap.profiling.ncu import read_ncu
from memgap.profiling.nsys import read_gpu_metrics, read_nsys
from memgap.profiling.torch_trace import read_trace
from memgap.recorded.export import export
from memgap.recorded.files import all_points, read_series
from memgap.recorded.load import restore
from memgap.roofline.gpus import read_gpus
from memgap.session.run import check_plan
from memgap.store.points import PointStore
from memgap.tables import kernels, offline_study, predictions
from memgap.tables.points import as_table, collect, read_table
from memgap.tables.requests import events_of, requests_of, telemetry_of
from memgap.telemetry.histograms import server_latencies
from memgap.telemetry.prometheus import parse_page
from memgap.telemetry.sampler import read_rows
from tests.support.profiles import EVENTS, ROWS, write_export
from tests.support.records import small_study, store_point

from .mutate import MILD, TEXTS, damaged, fuzz, garbled, tolerates

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = REPOSITORY / "recorded/h200"
STUDY = small_study()
POINT = next(iter(STUDY.points.values()))
Reader = Callable[[Path], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for damaged files."""
    return tmp_path_factory.mktemp("damaged")


def check_bytes(path: Path, base: bytes, read: Reader, examples: int, *allowed: type[Exception]) -> None:
    """Damage a file's bytes and read it."""

    @fuzz(examples)
    @given(garbled(base))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        tolerates(lambda: read(path), *allowed)

    path.write_bytes(base)
    read(path)
    check()


def check_json(
    path: Path, base: Any, read: Reader, examples: int, *allowed: type[Exception], write: Any = json.dumps
) -> None:
    """Damage a file's content, so that it stays JSON, and read it."""

    @fuzz(examples)
    @given(damaged(base, only_json=True))
    def check(content: Any) -> None:
        text = write(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        tolerates(lambda: read(path), *allowed)

    check()


def zipped(content: Any) -> bytes:
    """Return content as gzipped JSON."""
    return gzip.compress(json.dumps(content).encode(), mtime=0)


# --- the store, plans, recorded data


def stored_point(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file and content of a stored point."""
    key = store_point(folder, POINT.record, {"duration_s": 2.0, "total_throughput_tok_s": 50.0})
    path = folder / key / "point.json"
    return path, json.loads(path.read_text())


def test_point_files(folder: Path) -> None:
    points = folder / "points"
    path, content = stored_point(points)
    key = content["key"]
    store, plan = PointStore(points), STUDY.group_plan("small")

    def use(_: Path) -> None:
        store.status(key)
        tolerates(lambda: store.read(key))
        collect(plan, points)

    check_bytes(path, path.read_bytes(), use, 25)
    kept = {name: content[name] for name in ("key", "schema", "record", "status")}
    check_json(
        path,
        {name: one for name, one in content.items() if name not in kept},
        use,
        30,
        write=lambda rest: json.dumps({**(rest if isinstance(rest, dict) else {}), **kept}),
    )


def test_plans(folder: Path) -> None:
    plan = next(STUDY.session_plan(session) for session in STUDY.sessions)

    def use(path: Path) -> None:
        read = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        check_plan(read)
        check_same_server(read)

    check_json(folder / "plan.json", plan, use, 80)


def test_recorded_points_and_series(folder: Path) -> None:
    source = sorted(RECORDED.glob("*-warm-*.jsonl"))[0]
    lines = source.read_text().splitlines()[:2]
    points = [json.loads(line) for line in lines]
    recorded = folder / "recorded"
    recorded.mkdir()
    session = session_of(points[0]["record"])
    path = recorded / f"{session}.jsonl"
    store = PointStore(folder / "restored")

    def use(_: Path) -> None:
        for point in all_points(recorded):
            tolerates(lambda one=point: restore(recorded, session, [str(one["key"])], store))

    check_bytes(path, "\n".join(lines).encode(), use, 30)
    check_json(path, points[0], use, 40)
    series = recorded / f"{session}.telemetry.csv.gz"
    original = source.with_name(source.name.replace(".jsonl", ".telemetry.csv.gz")).read_bytes()
    check_bytes(series, original, read_series, 60)
    path.write_text("\n".join(lines))
    check_bytes(series, original, use, 20)
    plain = gzip.decompress(original)[:4000]

    @fuzz(60)
    @given(garbled(plain))
    def check(data: bytes) -> None:
        series.write_bytes(gzip.compress(data))
        tolerates(lambda: use(series))

    check()


def test_what_an_export_reads(folder: Path) -> None:
    results = folder / "results"
    path, content = stored_point(results / "points")
    content["provenance"]["commands"] = [["/x/python", "-m", "server", "--model", "/y/results/models/m"]]
    path.write_text(json.dumps(content))
    use = lambda _: export(results, folder / "exported")  # noqa: E731
    check_json(path, content, use, 30)
    path.write_text(json.dumps(content))
    check_bytes(path.parent / "telemetry.csv.gz", gzip.compress(b"time_s,a\n0,1\n1,2\n", mtime=0), use, 40)


# --- what a server sends


PAGE = (REPOSITORY / "tests/fuzz/data/metrics.txt").read_bytes()


@fuzz(120)
@given(garbled(PAGE))
def test_metrics_pages(data: bytes) -> None:
    page = tolerates(lambda: parse_page(data.decode("utf-8", "replace")), ValueError)
    if page is not None:
        VllmAdapter().metrics_sample(page)
        server_latencies({}, page, LATENCY_HISTOGRAMS)
        server_latencies(parse_page(PAGE.decode()), page, LATENCY_HISTOGRAMS)


EVENT = {
    "id": "1",
    "choices": [{"index": 0, "text": "a", "token_ids": [1, 2], "finish_reason": None, "delta": {"content": "a"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


REPLY = HEAD + chunk(b"data: " + json.dumps(EVENT).encode() + b"\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.mark.parametrize("loads", [sse._loads, json.loads], ids=["installed", "json"])
def test_replies(loads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_loads", loads)

    @fuzz(100)
    @given(garbled(REPLY), st.integers(1, 60))
    def cut_anywhere(data: bytes, size: int) -> None:
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        reply = sse.parse_reply(range(len(parts)), parts)
        assert all(one > 0 for one in reply.tokens)
        decoder = ReplyDecoder()
        try:
            for part in parts:
                decoder.feed(part)
        except ReplyError as error:
            assert str(error)

    @fuzz(100)
    @given(damaged(EVENT, only_json=True))
    def other_content(content: Any) -> None:
        data = json.dumps(content).encode()
        reply = sse.parse_reply([1], [HEAD + chunk(b"data: " + data + b"\n\n")])
        assert reply.malformed is None or len(reply.malformed) < 1000
        sse.parse_reply([1], [HEAD.replace(b"200", b"500") + chunk(data)])

    cut_anywhere()
    other_content()


@fuzz(100)
@given(st.sampled_from(TEXTS), st.sampled_from(TEXTS))
def test_addresses(first: str, second: str) -> None:
    for url in (first, f"http://{first}:{second}/", f"http://h:1/{first}", f"http://[{first}]"):
        tolerates(lambda one=url: parse_url(one))


def test_samples(folder: Path) -> None:
    base = b"time_monotonic_s,num_requests_running,kv_cache_usage_fraction\n1.0,2,0.5\n1.5,,0.6\n"
    check_bytes(folder / "samples.csv", base, lambda path: read_rows(path, 0.5), 80)


# --- profilers


def test_ncu(folder: Path) -> None:
    base = (REPOSITORY / "tests/unit/data/ncu_raw_h200.csv").read_bytes()
    begin = base.index(b'"ID"')
    check_bytes(folder / "ncu.csv", b"\n".join(base[begin:].splitlines()[:4]), read_ncu, 60)


def test_nsys(folder: Path) -> None:
    path = folder / "nsys.sqlite"
    write_export(path)

    def use(path: Path) -> None:
        tolerates(lambda: read_nsys(path))
        read_gpu_metrics(path)

    check_bytes(path, path.read_bytes(), use, 30)


CELLS: tuple[Any, ...] = (None, -1, 0, 2**62, 1.5, "", "x", "\u202e", b"\xff", float("inf"))


@fuzz(30)
@given(st.data())
def test_cells_of_nsys(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = {name: [list(row) for row in found] for name, found in ROWS.items() if name != "META_DATA_EXPORT"}
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from([row for found in rows.values() for row in found]))
        row[data.draw(st.integers(0, len(row) - 1))] = data.draw(st.sampled_from(CELLS))
    path = tmp_path_factory.getbasetemp() / "cells.sqlite"
    path.unlink(missing_ok=True)
    write_export(path)
    with sqlite3.connect(path) as connection:
        for name, found in rows.items():
            connection.execute(f"DELETE FROM {name}")
            with contextlib.suppress(sqlite3.Error):  # SQLite refuses what its schema does not allow
                connection.executemany(f"INSERT INTO {name} VALUES ({','.join('?' * len(found[0]))})", found)
    connection.close()
    tolerates(lambda: read_nsys(path))
    tolerates(lambda: read_gpu_metrics(path))


def test_torch_traces(folder: Path) -> None:
    content = {"schemaVersion": 1, "baseTimeNanoseconds": 5, "traceEvents": EVENTS}
    path = folder / "t.trace.json.gz"
    check_bytes(path, zipped(content), read_trace, 60)
    check_json(path, content, read_trace, 80, write=zipped)
    (folder / "traces").mkdir()
    inner = folder / "traces" / "t.json.gz"
    use = lambda _: read_kernels([folder / "traces"])  # noqa: E731
    check_bytes(inner, zipped(content), use, 60, ValueError)
    check_json(inner, content, use, 60, ValueError, write=zipped)


# --- workloads and models


SPEC = {
    "kind": "sharegpt",
    "seed": 0,
    "requests": 1,
    "token_ids": "text",
    "vocabulary_size": 64,
    "min_prompt_tokens": 1,
    "max_prompt_tokens": 64,
    "min_output_tokens": 1,
    "max_total_tokens": 128,
}
TALK = [{"conversations": [{"from": "human", "value": "w1 w2 w3"}, {"from": "gpt", "value": "w4 w5"}]}] * 2


def test_sharegpt(folder: Path) -> None:
    pytest.importorskip("tokenizers")
    source, tokenizer = folder / "sharegpt.json", folder / "tokenizer.json"
    tokenizer.write_text(json.dumps(tokenizer_json(64)))
    spec = {**SPEC, "path": str(source), "tokenizer": {"path": str(tokenizer)}}
    read = lambda _: read_conversations(spec)  # noqa: E731
    check_bytes(source, json.dumps(TALK).encode(), read, 40)
    check_json(source, TALK, read, 60)
    source.write_text(json.dumps(TALK))
    check_bytes(tokenizer, json.dumps(tokenizer_json(64)).encode(), read, 60)


TRACES = {
    "burst.csv": b"Timestamp,Model,Request tokens,Response tokens\n5,m,10,20\n6.5,m,11,21\n",
    "azure.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97996,10,20\n2023-11-16 18:18:04,9,8\n",
    "mooncake.jsonl": b'{"timestamp": 0, "input_length": 9, "output_length": 5, "hash_ids": [0, 1]}\n' * 2,
}


@pytest.mark.parametrize("name", TRACES)
def test_request_traces(folder: Path, name: str) -> None:
    spec = {
        "kind": "trace",
        "requests": 1,
        "speed": 1.0,
        "min_prompt_tokens": 1,
        "max_prompt_tokens": 10**6,
        "max_total_tokens": 10**6,
        "seed": 0,
        "vocabulary_size": 64,
        "path": str(folder / name),
    }
    check_bytes(folder / name, TRACES[name], lambda _: read_request_trace(spec), 60)
    check_bytes(folder / name, TRACES[name], lambda _: build_dataset(spec), 60)


HF = {
    "opt": {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 128,
        "ffn_dim": 128,
        "dtype": "float16",
    },
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 128,
        "intermediate_size": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "torch_dtype": "bfloat16",
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
    },
}


@pytest.mark.parametrize("kind", HF)
def test_hugging_face_configs(folder: Path, kind: str) -> None:
    @fuzz(80)
    @given(damaged(HF[kind], only_json=True))
    def check(content: Any) -> None:
        if isinstance(content, dict):
            tolerates(lambda: from_hf_config(content))
            tolerates(lambda: hf_config_dtype(content))

    check()
    home = folder / kind
    home.mkdir()
    models = {"m": {"weights": "path", "path": str(home)}}
    check_bytes(home / "config.json", json.dumps(HF[kind]).encode(), lambda _: resolve_model("m", models), 100)


def test_gpu_tables(folder: Path) -> None:
    text = (REPOSITORY / "src/memgap/roofline/gpus.yaml").read_text()
    table = yaml.safe_load(text)
    few = dict(list(table.items())[:2])

    def read(path: Path) -> None:
        read_gpus(path.read_text(encoding="utf-8", errors="replace"), path.name)

    check_bytes(folder / "gpus.yaml", yaml.safe_dump(few).encode(), read, 80)

    @fuzz(60)
    @given(damaged(few))
    def check(content: Any) -> None:
        tolerates(lambda: read_gpus(yaml.safe_dump(content), "gpus.yaml"))

    check()


def test_datasets(folder: Path) -> None:
    spec = next(iter(STUDY.datasets.values()))
    path = folder / f"{spec['key']}.npz"
    save_dataset(path, spec, build_dataset(spec))
    sidecar = path.with_suffix(".json")
    read = lambda _: load_dataset(path)  # noqa: E731
    check_bytes(path, path.read_bytes(), read, 40)
    save_dataset(path, spec, build_dataset(spec))
    content = json.loads(sidecar.read_text())
    check_bytes(sidecar, sidecar.read_bytes(), read, 60)
    check_json(sidecar, content, read, 40)


# --- what one job leaves for another


ADVICE: dict[str, Any] = {
    "model": "tiny-opt",
    "b_opt": 2,
    "candidates": [{"batch_cap": 1, "feasible": True}],
    "rule": {"latency": "itl_mean_ms", "slo_ms": 20.0, "epsilon": 0.1},
    "expected": {"total_throughput_tok_s": 50.0, "itl_mean_ms": 5.0},
    "memory": {"kv_at_b_opt_bytes": 1000, "kv_cache_memory_bytes": 2000},
    "server_flags": {"max-num-seqs": 2, "kv-cache-memory-bytes": 2000},
}


def test_advice(folder: Path) -> None:
    plan = STUDY.verification_plan("tiny-opt")
    point = {
        "key": "0" * 16,
        "status": "ok",
        "summary": {"total_throughput_tok_s": 49.0, "itl_mean_ms": 5.1},
        "engine": {"kv_pool_bytes": 1000},
        "verdict": {"verdict": "valid"},
    }

    def use(path: Path) -> None:
        for advice in read_advice([path]).values():
            tolerates(lambda one=advice: verification_plan(plan, one))
            tolerates(lambda one=advice: verification(one, point))

    check_bytes(folder / "advice.yaml", yaml.safe_dump(ADVICE).encode(), use, 40)
    check_json(folder / "advice.yaml", ADVICE, use, 80)


def test_verifications(folder: Path) -> None:
    content = {"model": "m", "b_opt": 2, "holds": True, "sentence": "It holds.", "checks": {"a": True}}
    read = lambda path: read_verifications([path])  # noqa: E731
    check_bytes(folder / "verified.yaml", yaml.safe_dump(content).encode(), read, 40)
    check_json(folder / "verified.yaml", content, read, 40)


def test_tables(folder: Path) -> None:
    points = folder / "tabled"
    stored_point(points)
    table = collect(STUDY.group_plan("small"), points)
    parquet, text = io.BytesIO(), io.BytesIO()
    as_table(table.to_dict("records")).to_parquet(parquet)
    table.to_csv(text, index=False)
    check_bytes(folder / "t.parquet", parquet.getvalue(), read_table, 40)
    check_bytes(folder / "t.csv", text.getvalue(), read_table, 60)


@pytest.mark.parametrize(
    ("name", "read", "columns"),
    [
        ("requests.csv.gz", lambda path: requests_of(path.parent), "index,status,ttft_s"),
        ("telemetry.csv.gz", lambda path: telemetry_of(path.parent), "time_s,num_requests_running"),
        ("kernels.csv", kernels.READ["kernels"].read, "sweep,key,name,start_s"),
        ("predictions.csv", predictions.READ["predictions"].read, "model,gpu,batch"),
        (
            "gpu.csv",
            offline_study.READ["gpu"].read,
            "key,model,phase,metric,profiler,batch,time_ms,value_fraction",
        ),
        ("fig02.csv", lambda path: read_paper(path.parent, "fig02", ["model"]), "model,batch"),
    ],
)
def test_csv_files(folder: Path, name: str, read: Reader, columns: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns.split(","))
    writer.writerows([[number] * (columns.count(",") + 1) for number in range(3)])
    data = text.getvalue().encode()
    pack: Callable[[bytes], bytes] = (lambda one: gzip.compress(one, mtime=0)) if name.endswith(".gz") else bytes

    def tolerant(path: Path) -> None:
        tolerates(lambda: read(path))

    check_bytes(folder / name, pack(data), tolerant, 50)

    @fuzz(50)
    @given(garbled(data))
    def inside(inner: bytes) -> None:
        (folder / name).write_bytes(pack(inner))
        tolerates(lambda: read(folder / name))

    inside()


def test_token_events(folder: Path) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, request=np.arange(3), time_s=np.arange(3.0), tokens=np.ones(3))
    check_bytes(folder / "tokens.npz", data.getvalue(), lambda path: events_of(path.parent), 60)


def test_the_mild_values_are_what_json_can_hold() -> None:
    assert json.loads(json.dumps(MILD)) == list(MILD)
    assert pd.DataFrame({"x": [1]}).shape == (1, 1)
