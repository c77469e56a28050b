"""What `memgap twin` and `memgap capacity` take; apart, so that other commands load nothing of the twin."""

import argparse
from pathlib import Path

POINTS = 5
MOST_WINDOWS = 60
RESOLUTION = 0.25
"""The search for a capacity ends where its interval is so narrow, as a share of the load."""
ARRIVALS = ("poisson", "constant", "gamma")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command line what `memgap twin` takes."""
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--recorded", type=Path, help="a recorded study in place of --results")
    parser.add_argument("--points", type=int, default=POINTS, help="how many points to calibrate from")
    parser.add_argument("--out", type=Path, help="write the calibration here as YAML")
    parser.add_argument("--table", type=Path, help="write predicted beside measured here as CSV")
    parser.add_argument("--cap", type=int, nargs="*", default=[], help="closed loops of so many requests in flight")
    parser.add_argument("--rate", type=float, nargs="*", default=[], help="open loops of so many requests a second")
    parser.add_argument("--arrival", choices=ARRIVALS, default="poisson")
    parser.add_argument("--burstiness", type=float, default=1.0, help="shape of gamma arrivals; below 1 is bursts")
    parser.add_argument("--requests", type=int, help="of each load")
    parser.add_argument("--prompt", metavar="LOW-HIGH", help="prompt tokens; as measured unless given")
    parser.add_argument("--output", metavar="LOW-HIGH", help="output tokens; as measured unless given")
    parser.add_argument("--prefix", type=int, metavar="TOKENS", help="of each prompt that others share, in front of it")
    parser.add_argument("--prefixes", type=int, default=1, help="how many different ones")
    parser.add_argument("--max-seqs", type=int)
    parser.add_argument("--max-batched-tokens", type=int, help="tokens of a step")
    parser.add_argument("--no-chunked-prefill", dest="chunked", action="store_const", const=False)
    parser.add_argument("--kv-tokens", type=int, help="size of the KV pool")
    parser.add_argument("--kv-dtype", help="such as fp8; the pool holds as many more tokens")
    parser.add_argument("--format", choices=["text", "csv", "json"], default="text")


def add_capacity_arguments(parser: argparse.ArgumentParser) -> None:
    """Give the command line what `memgap capacity` takes."""
    parser.add_argument("--plan", type=Path, required=True, help="a session's plan, as results/plans has it")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--slo", nargs="+", required=True, metavar="LATENCY=MS", help="such as ttft=200 tpot=20")
    parser.add_argument("--requests", type=int, default=400, help="of each window")
    parser.add_argument("--most-windows", type=int, default=MOST_WINDOWS)
    parser.add_argument("--resolution", type=float, default=RESOLUTION, help="how narrow the interval has to be")
    parser.add_argument("--out", type=Path, help="where the answer goes; results/twin/MODEL.capacity.yaml unless given")
