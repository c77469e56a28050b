"""How many injected faults does a point's verdict find, and how many false alarms does it raise?

`python benchmarks/verdict_faults.py [--times 5]` runs real sessions on the simulated engine, each fault `--times` times
and clean ones as often as all faults together, and prints a Markdown table. A fault counts as found when its own check
is among the verdict's reasons; a clean point that is not valid is a false alarm.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")

FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tokens missing from the server's counter (2 %)": ("output_count", {"fault": "lost-count:0.02"}),
    "usage that disagrees with the stream by 1": ("usage_mismatch", {"fault": "miscount:1"}),
    "prefix-cache hits (5 % of the prompt)": ("prefix_cache_hits", {"fault": "prefix-hits:0.05"}),
    "chunks of 2 tokens": ("tokens_per_chunk", {"fault": "coalesce:2"}),
    "API server writes 60 ms late": ("ttft_gap", {"fault": "delay-writes:0.06"}),
    "every 20th reply half as long": ("failed_requests", {"fault": "short-output:20"}),
    "every 20th request answered 500": ("failed_requests", {"fault": "http-500:20"}),
    "every 20th stream broken off": ("failed_requests", {"fault": "break-stream:20"}),
    "every 20th stream malformed": ("failed_requests", {"fault": "malformed-event:20"}),
    "KV cache too small": ("preempted", {"kv-tokens": 256, "max-model-len": 128}),
    "metrics page stalled for 1 s": ("few_samples", {"fault": "stalled-metrics:1"}),
}
CLEAN = {"step-base-ms": 8.0, "step-per-seq-ms": 0.1}


def config(times: int) -> dict[str, Any]:
    """Return a sweep with an experiment for each fault and clean ones between them, in random order."""
    experiments: dict[str, Any] = {}
    for number, (_, flags) in enumerate(FAULTS.values()):
        experiments[f"fault{number}"] = {"server": flags, "repeats": times}
    for number in range(len(FAULTS)):
        experiments[f"clean{number}"] = {"server": {"max-model-len": 512 + number}, "repeats": times}
    names = list(experiments)
    random.Random(0).shuffle(names)
    return {
        "engines": {"mock": {"adapter": "mock"}},
        "models": {"tiny-opt": {"weights": "synthetic", "dtype": "bfloat16"}},
        "datasets": {"short": {"kind": "random", "requests": 64, "prompt_tokens": 32, "output_tokens": 40}},
        "sweeps": {
            "faults": {
                "fixed": {
                    "model": "tiny-opt",
                    "dataset": "short",
                    "batch_cap": 8,
                    "server": CLEAN,
                    "load": {"requests": 60, "warmup_requests": 4},
                },
                "experiments": {name: experiments[name] for name in names},
            }
        },
        "collectors": {"interval_s": 0.1},
    }


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config(times), sort_keys=False))
        run = [SNAKEMAKE, "-j1", "--quiet", "all", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", name]
        subprocess.run([*run, "--configfile", str(path)], check=True, cwd=REPOSITORY)
        points = [json.loads(one.read_text()) for one in folder.glob("results/points/*/point.json")]
    report(points, times)
    return 0


def report(points: list[dict[str, Any]], times: int) -> None:
    """Print how many of each fault were found, and the alarms of the clean points."""
    asked = {json.dumps({**CLEAN, **flags}, sort_keys=True): name for name, (_, flags) in FAULTS.items()}
    found: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    clean = 0
    for point in points:
        checks = [reason["check"] for reason in point["verdict"]["reasons"]]
        fault = asked.get(json.dumps(point["record"]["server"]["args"], sort_keys=True))
        if fault is None:
            clean += 1
            alarms.update(checks or ["none"])
        elif FAULTS[fault][0] in checks:
            found[fault] += 1
    print("| fault | check | found |\n| --- | --- | --- |")
    for name, (check, _) in FAULTS.items():
        print(f"| {name} | `{check}` | {found[name]} of {times} |")
    wrong = clean - alarms.pop("none", 0)
    what = ", ".join(f"{check} {count}" for check, count in alarms.items()) or "none"
    print(f"\nclean points: {clean}, with a false alarm: {wrong} ({what})")


if __name__ == "__main__":
    sys.exit(main())
