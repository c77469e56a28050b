"""The command line: `memgap COMMAND`; `memgap --help` lists the commands."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from memgap.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; returns 0, or 2 where the user has to mend something."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"memgap: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="memgap", description="Make, run and inspect a memgap study.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser(
        "init", help="make a folder with a study in it: the quickstart, ready to run or to change"
    )
    init.add_argument("folder", type=Path, metavar="DIR")
    init.set_defaults(run=_init)

    install = commands.add_parser("install", help="install vLLM into .venv-engine here, for the GPU where there is one")
    install.set_defaults(run=_install)

    # no prefix of options is known, so that all of them are Snakemake's
    help_of_run = "run the workflow here; takes the targets and options of snakemake"
    run = commands.add_parser("run", prefix_chars="\0", add_help=False, help=help_of_run)
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="TARGET")
    run.set_defaults(run=_run)

    listing = commands.add_parser(
        "list", help="the points of the configuration, their state, and what a run would cost"
    )
    listing.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    listing.add_argument("--results", type=Path, default=Path("results"))
    listing.add_argument("--sweep", help="only this sweep")
    listing.add_argument("--format", choices=["text", "csv", "json"], default="text")
    listing.set_defaults(run=_list)

    doctor = commands.add_parser("doctor", help="what this machine has, and what each missing part would unlock")
    doctor.add_argument("--format", choices=["text", "json"], default="text")
    doctor.set_defaults(run=_doctor)

    where = commands.add_parser("where", help="where the results of the configuration are")
    where.add_argument("--configfile", type=Path, nargs="*", default=[])
    where.set_defaults(run=_where)

    unlock = commands.add_parser("unlock", help="remove Snakemake's lock where its driver is gone")
    unlock.add_argument("--directory", type=Path, default=Path())
    unlock.set_defaults(run=_unlock)

    rerun = commands.add_parser("rerun", help="the exact commands behind a stored point; --measure runs it again")
    rerun.add_argument("key", help="key of the point, see list")
    rerun.add_argument("--results", type=Path, default=Path("results"))
    rerun.add_argument("--measure", action="store_true", help="measure it again in place of the stored result")
    rerun.set_defaults(run=_rerun)

    importing = commands.add_parser(
        "import", help="results of vllm bench serve, GuideLLM, AIPerf, sglang and inference-perf beside a sweep"
    )
    importing.add_argument("files", type=Path, nargs="+", metavar="FILE")
    importing.add_argument("--sweep", help="beside which sweep; without one they are printed as CSV")
    importing.add_argument("--results", type=Path, default=Path("results"))
    importing.set_defaults(run=_import)

    exporting = commands.add_parser("export", help="a stored point in another tool's format")
    exporting.add_argument("key", help="key of the point, see list")
    exporting.add_argument("--format", choices=["vllm-bench", "llm-d", "perfetto"], required=True)
    exporting.add_argument("--out", type=Path, help="file; standard output unless given")
    exporting.add_argument("--results", type=Path, default=Path("results"))
    exporting.set_defaults(run=_export)

    jobs = commands.add_parser("jobs", help="write the plans and Slurm scripts of all sessions, submit nothing")
    jobs.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    jobs.add_argument("--site", type=Path, help="site file; as for profiles/slurm unless given")
    jobs.add_argument("--results", type=Path, default=Path("results"))
    jobs.set_defaults(run=_jobs)

    compare = commands.add_parser("compare", help="which of two sides is faster: folders of results, recorded studies")
    compare.add_argument("a", metavar="A", help="FOLDER, or FOLDER@ENGINE for one engine of it")
    compare.add_argument("b", metavar="B", help="the same; verdicts are about it")
    compare.add_argument("--margin", type=float, default=2.0, help="percent within which they are equal (2)")
    compare.add_argument("--metric", action="append", default=[], help="only this metric; may be given several times")
    compare.add_argument("--gate", action="store_true", help="exit with 1 where B is slower, 3 where that is open")
    compare.add_argument("--format", choices=["text", "csv"], default="text")
    compare.set_defaults(run=_compare)

    search = commands.add_parser("bisect", help="with which of a lab's versions a step came: its arms in their order")
    search.add_argument("lab", help="a lab whose arms are versions, the oldest first")
    search.add_argument("--configfile", type=Path, nargs="*", default=[], help="as for snakemake")
    search.add_argument("--metric", help="decode_step_mean_ms of offline labs, tpot_mean_ms of others unless told")
    search.add_argument("--results", type=Path, default=Path("results"))
    search.set_defaults(run=_bisect)

    predict = commands.add_parser("predict", help="what the roofline allows a model on a GPU, without running it")
    predict.add_argument("--model", required=True, nargs="+", help="names of the registry")
    predict.add_argument("--gpu", required=True, nargs="+", help="such as H200, A100 or RTX4090")
    predict.add_argument(
        "--batch", default="1,8,32,128,512", help="sequences that decode together, with commas between"
    )
    predict.add_argument("--context", type=float, default=330.0, help="mean tokens of a sequence while it decodes")
    predict.add_argument("--dtype", help="of weights and activations; the model's own unless given")
    predict.add_argument("--kv-dtype", help="of the KV cache, such as fp8; that of the activations unless given")
    predict.add_argument(
        "--quantization", help="format of the weights, such as fp8 or awq; the model's own unless given"
    )
    predict.add_argument("--gpus", type=int, default=1, help="GPUs that share one model by tensor parallelism")
    predict.add_argument("--pipeline", type=int, default=1, help="stages of a pipeline")
    predict.add_argument("--data", type=int, default=1, help="data-parallel groups of one server")
    predict.add_argument("--experts", action="store_true", help="each GPU holds whole experts")
    predict.add_argument("--efficiency", type=float, default=1.0, help="share of the bandwidth that kernels reach")
    predict.add_argument("--format", choices=["text", "csv", "json"], default="text")
    predict.set_defaults(run=_predict)

    from memgap.twin.arguments import add_arguments, add_capacity_arguments

    twin = commands.add_parser("twin", help="what a server would show under loads that nobody measured, with intervals")
    add_arguments(twin)
    twin.set_defaults(run=_twin)

    capacity = commands.add_parser("capacity", help="the highest rate at which a server keeps an SLO, measured on it")
    add_capacity_arguments(capacity)
    capacity.set_defaults(run=_capacity)
    return parser


def _init(options: argparse.Namespace) -> int:
    from memgap.commands.init import make_study

    make_study(options.folder)
    return 0


def _install(options: argparse.Namespace) -> int:
    from memgap.install.engine import main as install_engine

    return install_engine([])


def _run(options: argparse.Namespace) -> int:
    from memgap.commands.run import run_workflow

    return run_workflow(options.arguments)


def _capacity(options: argparse.Namespace) -> int:
    from memgap.commands.capacity import main as searched

    return searched(options)


def _twin(options: argparse.Namespace) -> int:
    from memgap.twin.command import answer_for

    return answer_for(options)


def _predict(options: argparse.Namespace) -> int:
    from memgap.roofline.report import print_predictions, read_batches

    plan = {
        "models": options.model,
        "gpus": options.gpu,
        "batch": read_batches(options.batch),
        "context_tokens": options.context,
        "dtype": options.dtype,
        "kv_dtype": options.kv_dtype,
        "quantization": options.quantization,
        "parallel": {
            "tensor": options.gpus,
            "pipeline": options.pipeline,
            "data": options.data,
            "expert": options.experts,
        },
        "efficiency": options.efficiency,
    }
    print_predictions(plan, options.format)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from memgap.versions.compare import print_comparison

    form, margin = options.format, options.margin / 100
    return print_comparison(options.a, options.b, margin, options.metric, form, options.gate)


def _bisect(options: argparse.Namespace) -> int:
    from memgap.versions.search import print_search

    return print_search(options.configfile, options.lab, options.metric, options.results)


def _list(options: argparse.Namespace) -> int:
    from memgap.commands.listing import print_listing

    print_listing(options.configfile, options.results, options.sweep, options.format)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from memgap.commands.doctor import print_findings

    print_findings(options.format)
    return 0


def _where(options: argparse.Namespace) -> int:
    from memgap.commands.where import print_where

    print_where(options.configfile)
    return 0


def _rerun(options: argparse.Namespace) -> int:
    from memgap.commands.rerun import print_commands, rerun

    if options.measure:
        return rerun(options.key, options.results)
    print_commands(options.key, options.results)
    return 0


def _import(options: argparse.Namespace) -> int:
    from memgap.commands.exchange import import_files

    import_files(options.files, options.sweep, options.results)
    return 0


def _export(options: argparse.Namespace) -> int:
    from memgap.commands.exchange import export_point

    export_point(options.key, options.format, options.results, options.out)
    return 0


def _jobs(options: argparse.Namespace) -> int:
    from memgap.cluster.scripts import print_scripts
    from memgap.cluster.site import chosen_site, read_site

    site = read_site(options.site) if options.site else chosen_site([])
    print_scripts(options.configfile, site, options.results)
    return 0


def _unlock(options: argparse.Namespace) -> int:
    from memgap.commands.unlock import remove_stale_lock

    remove_stale_lock(options.directory)
    return 0
