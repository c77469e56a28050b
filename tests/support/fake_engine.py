"""An interpreter for engines that run in a worker process: it does what a worker of offline or static batches leaves.

Its numbers mean nothing. A point takes until the session's sampler has seen it, so that there is evidence to judge.
"""

import csv
import io
import sys
from pathlib import Path

from memgap.kinds.offline.steps import COLUMNS, Step, row

VERSION = "1.2.3"
SCRIPT = """#!{python}
import json, sys, time
from pathlib import Path
module, arguments = sys.argv[2], dict(zip(sys.argv[3::2], sys.argv[4::2]))
out, spec = Path(arguments["--out"]), json.loads(Path(arguments["--spec"]).read_text())

def samples():
    return sum(path.read_bytes().count(b"\\n") for path in out.parent.glob("*.csv"))

def wait_for_samples():
    before, last_resort_s = samples(), time.monotonic() + 600
    while samples() < before + 4 and time.monotonic() < last_resort_s:
        time.sleep(0.02)

def offline(run):
    folder = out / ("." + run["key"])
    folder.mkdir()
    begin = dict(start_unix_s=time.time(), start_monotonic_s=time.monotonic(), prefill_end_monotonic_s=time.monotonic())
    wait_for_samples()
    (folder / "steps.csv").write_text({steps!r})
    outcome = dict(status="ok", message=None, files=[], end_monotonic_s=time.monotonic(), **begin)
    (folder / "run.json").write_text(json.dumps(outcome))
    folder.rename(out / run["key"])

def batch(asked):
    start_s = time.monotonic()
    wait_for_samples()
    steps = [dict(time_s=time.monotonic(), kv_slots=len(asked), kv_bytes=8.0) for _ in range(max(n for _, n in asked))]
    padded = max(len(ids) for ids, _ in asked)
    return dict(start_monotonic_s=start_s, end_monotonic_s=time.monotonic(), padded_prompt_tokens=padded,
                generated_tokens=len(steps), steps=steps)

def static(run):
    begin = dict(start_unix_s=time.time(), start_monotonic_s=time.monotonic())
    batches = [batch(one) for one in run["batches"]]
    outcome = dict(status="ok", message=None, batches=batches, end_monotonic_s=time.monotonic(), **begin)
    (out / "new").write_text(json.dumps(outcome))
    (out / "new").rename(out / (run["key"] + ".json"))

facts = dict(version={version!r}, start_s=0.1, loaded_monotonic_s=time.monotonic(), num_gpu_blocks=10,
             kv_block_tokens=16, kv_pool_tokens=160, max_model_len=64, async_scheduling=False, vocabulary_size=8192)
(out / "facts").write_text(json.dumps(facts))
(out / "facts").rename(out / "engine.json")
for run in spec["runs"]:
    (offline if "offline" in module else static)(run)
"""


def write_fake_engine(folder: Path) -> Path:
    """Write the interpreter into a folder; returns its path."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for phase, count, wall_s in (("prefill", 2, 0.01), ("decode", 7, 0.002)):
        for number in range(count):
            step = Step(phase, number, 0.0, wall_s=wall_s, tokens=4, running=4, gpu_s=wall_s / 2)
            writer.writerow(row(step))
    path = folder / "engine-python"
    path.write_text(SCRIPT.format(python=sys.executable, version=VERSION, steps=text.getvalue()))
    path.chmod(0o755)
    return path
