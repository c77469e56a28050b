"""Runs memgap's load generator the way the peers are run, and writes what it reports as JSON."""

import argparse
import json
from pathlib import Path

from memgap.load.latency import summarize
from memgap.load.records import LoadPlan, Prompt
from memgap.load.runner import run

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--streams", type=int, required=True)
parser.add_argument("--requests", type=int, required=True)
parser.add_argument("--tokens", type=int, required=True)
parser.add_argument("--out", type=Path, required=True)
given = parser.parse_args()
prompts = [Prompt(given.tokens, [10 + index % 1000] * 16) for index in range(given.requests)]
plan = LoadPlan("mock", "closed", given.requests, concurrency=given.streams)
given.out.write_text(json.dumps(summarize(run(plan, prompts, [given.url]))))
