"""Makes the tables of a declaration; what workflow/scripts/tabulate.py runs."""

from importlib import import_module
from pathlib import Path

from memgap.config.load import known
from memgap.script import pairs, read_inputs, read_options, run_script, script_parser
from memgap.tables.spec import modules, tables


def preload() -> None:
    """Import what tables are made with, once for all jobs of a warm server."""
    import_module("memgap.tables.forms")
    for module in modules().values():
        import_module(module)


def main(arguments: list[str] | None = None) -> int:
    """Make the tables of one declaration and write their files; returns the exit status."""
    parser = script_parser("Make tables.")
    parser.add_argument("--table", required=True)
    read_options(parser)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with the results")
    parser.add_argument("--write", nargs="+", required=True, metavar="NAME=FILE", help="where each of its files goes")
    options = parser.parse_args(arguments)

    def tabulate() -> None:
        from memgap.tables.forms import write_contents

        known(options.table, tables(), "table", "tabulate")
        table = tables()[options.table]
        contents = import_module(modules()[options.table]).make(read_inputs(options, table.reads, table.plan))
        write_contents(contents, {name: Path(one) for name, one in pairs(options.write)}, table.digits)

    return run_script(tabulate)
