"""Groups of servers on the simulated engine: a load through a router, roles, and what is recorded when a part dies."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from memgap.config.load import check_config
from memgap.engine.failure import ServerFailureError
from memgap.engine.given import GivenFlags, answering
from memgap.errors import UserError
from memgap.host import group as group_module
from memgap.host.group import Group, devices_of, member_record
from memgap.host.protocol import HostPlan
from memgap.host.routers import Behind, router_command
from memgap.points.point import Record
from memgap.router.members import Member
from memgap.router.policies import least_outstanding
from memgap.store.points import PointStore
from memgap.study.plan import plan_of
from memgap.study.study import Study, expand_study
from memgap.tables.inputs import Inputs
from memgap.tables.members import make
from memgap.telemetry.gpus import Choice, Device
from tests.support.records import small_config
from tests.support.sessions import run_all

MIXED = {"members": {"a": {}, "b": {"server": {"block-size": 32}}}, "router": {"kind": "round-robin"}}
SPLIT = {"members": {"p": {"role": "prefill"}, "d": {"role": "decode"}}, "router": {"kind": "nixl-pull"}}


def grouped(topology: dict[str, Any], **changes: Any) -> Study:
    config = small_config()
    fixed = {**config["sweeps"]["small"]["fixed"], "batch_cap": 2, "topology": topology, **changes}
    return expand_study(check_config({**config, "sweeps": {"small": {"fixed": fixed}}}))


def record_of(study: Study) -> Record:
    (point,) = study.points.values()
    return point.record


def group(folder: Path, topology: dict[str, Any]) -> Group:
    return Group(HostPlan(record_of(grouped(topology)), "unused", sys.executable, folder, 60.0, interval_s=0.05))


def stored(study: Study, results: Path) -> Any:
    run_all(study, results)
    (key,) = study.points
    return PointStore(results / "points").read(key)


def left_over() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def test_two_servers_share_a_load_through_the_router(tmp_path: Path) -> None:
    point = stored(grouped(MIXED, load={"requests": 20, "warmup_requests": 2}), tmp_path)
    assert point["status"] == "ok"
    assert point["verdict"]["verdict"] != "invalid"
    outputs = {name: one["server_output_tokens"] for name, one in point["members"].items()}
    assert outputs == {"a": 80.0, "b": 80.0}
    assert point["summary"]["server_output_tokens"] == 160
    assert [point["engine"]["members"][name]["kv_block_tokens"] for name in "ab"] == [16, 32]
    assert not left_over()


def test_a_prefill_server_hands_its_cache_to_a_decode_server(tmp_path: Path) -> None:
    point = stored(grouped(SPLIT, load={"requests": 10, "warmup_requests": 2}), tmp_path)
    assert point["status"] == "ok", point["error"]
    summary = point["summary"]
    assert not {"ttft_gap", "e2e_gap", "output_count"} & set(point["flags"])
    assert summary["prefill_e2e_mean_ms"] > 0
    assert point["members"]["p"]["server_output_tokens"] == 10  # one of each request
    assert point["members"]["d"]["server_output_tokens"] == point["summary"]["output_tokens"] == 80
    assert (summary["kv_transfers"], summary["kv_transfers_failed"]) == (10, 0)
    assert summary["kv_transfer_mean_ms"] == pytest.approx(1e3 * summary["kv_transfer_bytes"] / 1e8 / 10)
    assert summary["kv_transfer_bytes_s"] == pytest.approx(1e8)


def test_requests_that_fail_behind_the_router_are_the_points_and_not_taken_for_its_end(tmp_path: Path) -> None:
    bad = {"members": {"a": {"server": {"fault": "http-500:2"}}, "b": {}}, "router": {"kind": "round-robin"}}
    point = stored(grouped(bad, load={"requests": 20, "warmup_requests": 1}), tmp_path)
    assert point["status"] == "request_errors"
    assert "HTTP 500" in point["error"]["message"] and "health" not in point["error"]["message"]


def test_the_key_depends_on_the_members_and_the_router() -> None:
    other = {**MIXED, "router": {"kind": "least-outstanding"}}
    fewer = {"members": {"a": {}}, "router": {"kind": "round-robin"}}
    keys = [*grouped(MIXED).points, *grouped(other).points, *grouped(fewer).points, *grouped(SPLIT).points]
    assert len(set(keys)) == 4


def test_members_are_told_their_roles_and_have_what_all_share() -> None:
    record = record_of(grouped(SPLIT))
    roles = {name: member_record(record, name)["server"]["args"] for name in "pd"}
    assert [one["kv-transfer-config"]["kv_role"] for one in roles.values()] == ["kv_producer", "kv_consumer"]
    assert all(one["step-base-ms"] == 1.0 for one in roles.values())
    assert (answering(record["server"]), GivenFlags.of(record).gpus) == (1, 2)


@pytest.mark.parametrize(
    ("topology", "changes", "said"),
    [
        (MIXED | {"router": {"kind": "nixl-pull"}}, {}, "needs members of the roles prefill and decode"),
        (SPLIT | {"router": {}}, {}, "least-outstanding needs members without a role"),
        (SPLIT | {"router": {"kind": "sglang-bootstrap"}}, {}, "is for sglang, not for mock"),
        (MIXED | {"router": {"kind": "sglang-router"}}, {}, "topology.router.version is missing"),
        (MIXED | {"router": {"version": "1"}}, {}, "topology.router.version is for vllm-router and sglang-router"),
        (SPLIT | {"router": {"kind": "sglang-router", "version": "1"}}, {}, "is for sglang, not for mock"),
        (MIXED, {"replicas": 2}, "`replicas` share one GPU"),
        ({"members": {"a": {"server": {"port": 1}}}}, {}, "topology.members.a"),
    ],
)
def test_a_group_that_cannot_be_is_refused_in_a_sentence(
    topology: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        grouped(topology, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("victim", ["p", "d", "router"])
def test_a_part_that_dies_ends_the_point_with_its_own_status(tmp_path: Path, victim: str) -> None:
    with group(tmp_path, SPLIT) as host:
        host.start()
        assert host.alive and len(host.commands) == 3
        pid = host.helper_pids[-1] if victim == "router" else host.named[victim].pid
        os.kill(pid, signal.SIGKILL)
        while host.alive:
            time.sleep(0.02)
        death = host.death()
        assert death.kind == ("router_failed" if victim == "router" else "crash")
        assert str(death).startswith({"p": "prefill p", "d": "decode d", "router": "the router"}[victim])
        host.start()
        assert host.alive
    assert not left_over()


def test_a_member_that_does_not_start_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    bad = {"members": {"a": {}, "b": {"server": {"fault": "fail-start"}}}}
    with group(tmp_path, bad) as host, pytest.raises(ServerFailureError, match="of the group, b failed"):
        host.start()
    assert not left_over()


def test_each_member_gets_gpus_of_its_own_and_a_missing_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(grouped({"members": {"a": {"server": {"tensor-parallel-size": 2}}, "b": {}}}))
    seen = [Device(number, uuid=f"GPU-{number}") for number in range(3)]
    monkeypatch.setattr(group_module, "server_gpus", lambda _: Choice(tuple(seen)))
    assert devices_of(record) == {"a": ["GPU-0", "GPU-1"], "b": ["GPU-2"]}
    monkeypatch.setattr(group_module, "server_gpus", lambda _: Choice(tuple(seen[:2])))
    with pytest.raises(ServerFailureError, match="the group takes 3 GPUs, but 2 can be used") as failure:
        devices_of(record)
    assert failure.value.hopeless
    monkeypatch.setattr(group_module, "server_gpus", lambda _: Choice())
    assert devices_of(record) == {"a": [], "b": []}


def test_the_member_with_the_fewest_requests_in_flight_is_next() -> None:
    members = [Member("a", "http://127.0.0.1:1"), Member("b", "http://127.0.0.1:2")]
    members[0].outstanding = 1
    assert least_outstanding(members).name == "b"
    members[1].outstanding, members[1].sent = 1, 5
    assert least_outstanding(members).name == "a"


def test_another_projects_router_has_its_own_words_and_has_to_be_the_release_of_the_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 0.3.2\n")
    python.chmod(0o755)
    monkeypatch.setenv("MEMGAP_ROUTERS_PYTHON", str(python))
    members = [Behind("a", "", "http://127.0.0.1:1"), Behind("b", "", "http://127.0.0.1:2")]
    router = {"kind": "sglang-router", "version": "0.3.2", "args": {"policy": "cache_aware"}}
    command = router_command(router, members, 7)
    assert command[:3] == [str(python), "-m", "sglang_router.launch_router"]
    assert command[-5:] == ["--worker-urls", "http://127.0.0.1:1", "http://127.0.0.1:2", "--policy", "cache_aware"]
    pair = [Behind("p", "prefill", "http://127.0.0.1:1", 9), Behind("d", "decode", "http://127.0.0.1:2")]
    split = router_command({**router, "args": {}}, pair, 7)
    assert split[-6:] == ["--pd-disaggregation", "--prefill", pair[0].url, "9", "--decode", pair[1].url]
    assert "--vllm-pd-disaggregation" in router_command({**router, "kind": "vllm-router", "args": {}}, pair, 7)
    with pytest.raises(ServerFailureError, match=r"the point is of sglang-router 0.4, .* has 0.3.2") as failure:
        router_command({**router, "version": "0.4"}, members, 7)
    assert failure.value.hopeless
    monkeypatch.setenv("MEMGAP_ROUTERS_PYTHON", str(tmp_path / "none"))
    with pytest.raises(ServerFailureError, match="sglang-router is not installed"):
        router_command(router, members, 7)


def test_the_table_of_members_tells_who_did_what(tmp_path: Path) -> None:
    study = grouped(SPLIT, load={"requests": 10, "warmup_requests": 2})
    stored(study, tmp_path)
    rows = make(Inputs(plan=plan_of(study, "group", "small"), points=tmp_path / "points"))["members"]
    assert isinstance(rows, pd.DataFrame)
    by_member = rows.set_index("member")
    assert by_member["role"].to_dict() == {"p": "prefill", "d": "decode"}
    assert by_member.loc["d", "kv_transfers"] == 10
    assert by_member.loc["d", "output_share_of_mean"] == 1
    assert by_member["output_share_of_mean"].isna()["p"]
