"""Runs `vllm bench serve` by its module; the CPU wheel's command fails for want of a distribution named vllm."""

import argparse
import asyncio

from vllm.benchmarks.serve import add_cli_args, main_async

parser = argparse.ArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args()))
