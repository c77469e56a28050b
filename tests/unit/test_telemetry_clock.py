"""The sampler keeps to its clock whatever the engine answers, and averages match sums done by hand."""

import csv
import io
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from memgap.install import engine as install
from memgap.telemetry import nvml, sampler, window
from memgap.telemetry.host import HostSampler
from memgap.telemetry.prometheus import largest, parse_page, total
from memgap.telemetry.sampler import fetch_engine_sample, read_rows
from tests.support.nvml import FakeNvml
from tests.support.servers import answering


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nvllm:num_requests_running 1\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\na b c {\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\n",
    ],
    ids=["closed", "another protocol", "500", "cut short", "malformed", "no text"],
)
def test_an_answer_that_is_no_metrics_page_gives_no_sample(reply: bytes) -> None:
    with answering(reply) as port:
        assert fetch_engine_sample([f"http://127.0.0.1:{port}"], "mock", 2.0) == {}
    assert fetch_engine_sample([f"http://127.0.0.1:{port}"], "mock", 2.0) == {}


def test_exponents_signs_and_special_values() -> None:
    page = parse_page('a 1.2e+06\nb -3E-2\nc +Inf\nd{x="1",} 2 1700000000000\n')
    assert total(page, "a") == 1.2e6
    assert total(page, "b") == -0.03
    assert math.isnan(total(page, "c") or 0.0)
    assert total(page, "d") == 2
    assert largest(parse_page('u{e="0"} 0.25\nu{e="1"} 0.5\n'), "u") == 0.5
    assert largest(page, "none") is None
    assert parse_page("") == {}


@pytest.mark.parametrize("text", ["a b c {", "a{x=1} 2\n", 'a{x="1" 2\n', "a one\n", "a\n"])
def test_malformed_pages_are_value_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_page(text)


class Clock:
    """Time that passes only where it is told to: while waiting, and in a slow answer of the engine."""

    def __init__(self, slow: dict[int, float], samples: int) -> None:
        self.now_s, self.samples, self._slow, self._left = 1000.0, 0, slow, samples

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s

    def fetch(self, *_: object, **__: object) -> dict[str, float]:
        """Answer after as long as this sample takes."""
        self.now_s += self._slow.get(self.samples, 0.01)
        self.samples += 1
        return {}

    def select(self, *arguments: object) -> tuple[list[object], list[object], list[object]]:
        """Wait; standard input is at its end after the last sample."""
        self.now_s += float(arguments[3])  # type: ignore[arg-type]
        return ([sys.stdin] if self.samples >= self._left else [], [], [])


def ticks(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the sampling times, in seconds since the start, of a sampler with a period of 1 s."""
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(sampler, "select", SimpleNamespace(select=clock.select))
    monkeypatch.setattr(sampler, "fetch_engine_sample", clock.fetch)
    monkeypatch.setattr(sampler.sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(nvml, "pynvml", None)
    out = io.StringIO()
    sampler.sample_until_stdin_closes(["http://none"], "mock", [1], [], 1.0, out)
    return [round(float(row["time_monotonic_s"]) - 1000, 3) for row in csv.DictReader(io.StringIO(out.getvalue()))]


def test_samples_come_on_the_clock_without_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ticks(Clock({}, 5), monkeypatch) == [0, 1, 2, 3, 4]


def test_a_late_tick_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ticks(Clock({1: 2.5}, 5), monkeypatch) == [0, 1, 4, 5, 6]


def test_the_sampler_ends_when_its_reader_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    arguments = ["--url", "http://127.0.0.1:9", "--adapter", "mock", "--pid", "1", "--interval-s", "0.05"]
    command = [sys.executable, "-m", "memgap.telemetry.sampler", *arguments, "--out", str(out)]
    code = f"import subprocess, os; p = subprocess.Popen({command!r}, stdin=subprocess.PIPE); print(p.pid); os._exit(1)"
    reader = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert reader.stdout.strip().isdigit(), "the sampler held standard output, so it has ended when this returns"
    assert all("rss_bytes" in row for row in read_rows(out, 0.0))


def test_a_line_cut_in_its_last_cell_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    for end in ("11.0,1.5e+", "11.0,1"):
        path.write_text(f"time_monotonic_s,rss_bytes\n10.0,5\n{end}")
        assert read_rows(path, 4.0) == [{"rss_bytes": 5.0, "time_s": 6.0}]


def test_a_mean_by_hand() -> None:
    rows = [{"time_s": t, "x": x} for t, x in ((0.0, 10.0), (1.0, 20.0), (4.0, 0.0))]
    # 10 for 1 s, 20 for 3 s, 0 for 6 s
    assert window.time_weighted_mean(rows, "x", 10.0) == pytest.approx(7.0)
    assert window.time_weighted_mean(rows, "x", 4.0) == pytest.approx((10 + 60 + 0) / 4)
    assert window.time_weighted_mean(rows[1:2], "x", 8.0) == 20.0
    assert window.time_weighted_mean(rows, "x", 0.0) is None
    assert window.time_weighted_mean([{"time_s": -1.0, "x": 1.0}, {"time_s": 11.0, "x": 1.0}], "x", 10.0) is None


def test_a_counter_that_was_seen_once_tells_nothing() -> None:
    assert window.increase([{"time_s": 0.0, "x": 3.0}], "x", 1.0) is None
    rows = [{"time_s": 0.2, "x": 3.0}, {"time_s": 0.8, "x": 5.0}]
    assert window.increase(rows, "x", 1.0) == 2.0


def test_energy_without_tokens_has_no_share() -> None:
    rows = [{"time_s": -0.1, "gpu_energy_j": 1.0}, {"time_s": 1.2, "gpu_energy_j": 3.0}]
    summary = window.summarise(rows, 1.0, 0)
    assert summary["energy_j"] == 2.0
    assert "energy_per_output_token_j" not in summary


def test_a_process_that_has_ended_has_no_memory() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert set(HostSampler([done.pid]).sample()) == {"cpu_util_fraction"}


class NoDriver(FakeNvml):
    """A machine with pynvml and without a driver."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Refuse."""
        raise self.NVMLError("Driver Not Loaded")


def test_the_reason_for_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, chosen, reason in (
        (None, None, "pynvml is not installed"),
        (NoDriver(), None, "Driver Not Loaded"),
        (FakeNvml(), "", "no visible GPU"),
        (FakeNvml(), "GPU-0000", "no visible GPU"),
    ):
        monkeypatch.setattr(nvml, "pynvml", module)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        with nvml.Nvml() as gpu:
            assert (gpu.sample(), gpu.facts(), gpu.reason) == ({}, {}, reason)
        assert install.wanted_kind() == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    assert install.wanted_kind() == "cuda"
