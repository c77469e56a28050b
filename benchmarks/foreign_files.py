"""Writes the result files of other tools that tests/unit/data/foreign has, by running each against the mock server.

`python benchmarks/foreign_files.py OUT --vllm PYTHON --guidellm BIN --aiperf BIN --inference-perf BIN --sglang PYTHON`;
a tool that is not named is left out. Each sends 24 requests of 16 and 32 tokens. What no reader needs is cut.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from memgap.loopback import without_proxy
from memgap.mock_server.launch import MockServer
from memgap.models import resolve_model, write_synthetic_model

HERE = Path(__file__).resolve().parent
REQUESTS, PROMPT, OUTPUT, HELD, RATE = "24", "16", "32", "4", "10"


def commands(options: argparse.Namespace, url: str, tokenizer: Path, out: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield what each tool is called and its command."""
    held_or_rate = (("", HELD), ("-rate", RATE))
    if options.vllm:
        base = [
            options.vllm,
            str(HERE / "peers/vllm_bench.py"),
            "--backend",
            "vllm",
            "--base-url",
            url,
            "--model",
            "mock",
        ]
        base += [
            "--tokenizer",
            str(tokenizer),
            "--dataset-name",
            "random",
            "--random-input-len",
            PROMPT,
            "--ignore-eos",
        ]
        base += ["--random-output-len", OUTPUT, "--num-prompts", REQUESTS, "--disable-tqdm", "--save-result"]
        base += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99"]
        for (name, load), flag in zip(held_or_rate, ("--max-concurrency", "--request-rate"), strict=True):
            yield f"vllm{name}", [*base, flag, load, "--result-filename", str(out / f"vllm{name}.json")]
    if options.guidellm:
        backend = f"kind=openai_http,target={url},model=mock,request_format=/v1/completions"
        base = [options.guidellm, "run", "--backend", backend, "--disable-console"]
        base += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
        base += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
        base += ["--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={OUTPUT}"]
        for (name, load), kind in zip(held_or_rate, ("concurrent,streams", "poisson,rate"), strict=True):
            profile = ["--profile", f"kind={kind}={load}"]
            yield f"guidellm{name}", [*base, *profile, "--output", f"kind=json,path={out}/guidellm{name}.json"]
    if options.aiperf:
        base = [options.aiperf, "profile", "--model", "mock", "--url", url, "--streaming", "--ui", "none"]
        base += ["--endpoint-type", "completions", "--tokenizer", str(tokenizer), "--request-count", REQUESTS]
        base += ["--synthetic-input-tokens-mean", PROMPT, "--output-tokens-mean", OUTPUT]
        base += ["--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{OUTPUT}"]
        for (name, load), flag in zip(held_or_rate, ("--concurrency", "--request-rate"), strict=True):
            yield f"aiperf{name}", [*base, flag, load, "--artifact-dir", str(out / f"aiperf{name}")]
    if options.sglang:
        base = [
            options.sglang,
            "-m",
            "sglang.benchmark.serving",
            "--backend",
            "vllm",
            "--base-url",
            url,
            "--model",
            "mock",
        ]
        base += ["--tokenizer", str(tokenizer), "--dataset-name", "random-ids", "--random-input-len", PROMPT]
        base += [
            "--random-output-len",
            OUTPUT,
            "--random-range-ratio",
            "1",
            "--num-prompts",
            REQUESTS,
            "--disable-tqdm",
        ]
        base += ["--warmup-requests", "0", "--output-file", str(out / "sglang.jsonl")]
        for (name, load), flag in zip(held_or_rate, ("--max-concurrency", "--request-rate"), strict=True):
            yield f"sglang{name}", [*base, flag, load]
    if options.inference_perf:
        lengths = {"std_dev": 0, "total_count": 60}
        config = {
            "load": {
                "type": "constant",
                "stages": [{"rate": 6, "duration": 4}, {"rate": 10, "duration": 3}],
                "num_workers": 1,
            },
            "api": {"type": "completion", "streaming": True},
            "server": {"type": "vllm", "model_name": "mock", "base_url": url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": str(tokenizer)},
            "data": {
                "type": "random",
                "input_distribution": {one: int(PROMPT) for one in ("min", "max", "mean")} | lengths,
                "output_distribution": {one: int(OUTPUT) for one in ("min", "max", "mean")} | lengths,
            },
            "report": {"request_lifecycle": {"summary": True, "per_stage": True, "per_request": False}},
            "storage": {"local_storage": {"path": str(out / "inference-perf")}},
        }
        (out / "inference-perf.json").write_text(json.dumps(config))
        yield "inference-perf", [options.inference_perf, "--config_file", str(out / "inference-perf.json")]


def cut(found: Any, name: str) -> Any:
    """Return a tool's document without lists of single requests and parts that no reader needs."""
    if name.startswith("guidellm"):
        (run,) = found["benchmarks"]
        needed = [
            *("request_totals", "requests_per_second", "output_tokens_per_second", "tokens_per_second"),
            *("prompt_token_count", "output_token_count", "request_latency", "time_to_first_token_ms"),
            *("inter_token_latency_ms", "time_per_output_token_ms"),
        ]
        metrics = {one: run["metrics"][one] for one in needed}
        kept = {
            one: values if one == "request_totals" else {"successful": values["successful"]}
            for one, values in metrics.items()
        }
        strategy = {"config": {"strategy": run["config"]["strategy"]}}
        run = {"start_time": run["start_time"], "duration": run["duration"], **strategy, "metrics": kept}
        return {"metadata": found["metadata"], "config": {"spec": {"backend": {"model": "mock"}}}, "benchmarks": [run]}
    if name.startswith("aiperf"):
        asked = {one: found["input_config"][one] for one in ("models", "phases")}
        rest = {one: value for one, value in found.items() if one not in ("telemetry_data", "input_config", "run_info")}
        return {**rest, "input_config": asked}
    return {one: value for one, value in found.items() if not isinstance(value, list) and one != "tokenizer_id"}


def keep(written: Path, out: Path) -> None:
    """Copy what the tools wrote, cut."""
    for path in sorted(written.glob("*.json")) + sorted(written.glob("aiperf*/profile_export_aiperf.json")):
        name = path.parent.name if path.parent != written else path.stem
        if name != "inference-perf":
            (out / f"{name}.json").write_text(json.dumps(cut(json.loads(path.read_text()), name), indent=1) + "\n")
    if (written / "sglang.jsonl").exists():
        lines = [json.loads(line) for line in (written / "sglang.jsonl").read_text().splitlines()]
        (out / "sglang.jsonl").write_text("".join(json.dumps(cut(one, "sglang")) + "\n" for one in lines))
    if (written / "inference-perf").exists():
        (out / "inference-perf").mkdir(exist_ok=True)
        for path in sorted((written / "inference-perf").glob("stage_*_lifecycle_metrics.json")):
            shutil.copy(path, out / "inference-perf" / path.name)
        config = yaml.safe_load((written / "inference-perf/config.yaml").read_text())
        asked = {"load": {"stages": config["load"]["stages"]}, "server": {"model_name": config["server"]["model_name"]}}
        (out / "inference-perf/config.yaml").write_text(yaml.safe_dump(asked))


def main() -> int:
    """Parse the command line, run the tools, keep their files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    for tool in ("vllm", "guidellm", "aiperf", "inference-perf", "sglang"):
        parser.add_argument(f"--{tool}", metavar="PROGRAM")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        write_synthetic_model(resolve_model("tiny-opt", {"tiny-opt": {"weights": "synthetic"}}), tokenizer)
        with MockServer("--max-num-seqs", "8", "--kv-tokens", "65536", "--step-base-ms", "5") as mock:
            for tool, command in commands(options, mock.url, tokenizer, folder):
                done = subprocess.run(
                    command, cwd=folder, env=without_proxy(os.environ), capture_output=True, text=True
                )
                print(f"{tool}: {'ok' if done.returncode == 0 else done.stderr[-500:]}", flush=True)
        keep(folder, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
