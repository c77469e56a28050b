"""What a table says of itself, and how its files are read back: `TableSpec` for the workflow, `Columns` for readers.

See `memgap.declared` for how declarations are read, and docs/architecture.md for how to add a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memgap.declared import declared, setting_of, settings_schema

COMMAND = "memgap.tables.command"
FOLDERS = ("tables", "kinds/*", "tuning", "labs", "explore")
GROUP = "{group}"


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Tables that one job makes: from the measurements of a group, or from other tables.

    `writes`: name -> path, with {group} where every group has it; a figure or table that reads `sweep.points` reads the
    file that is called `points` here. `of`: the setting (`sweep`, `study`, `loadtest`, `tuning`, `predictions`) whose
    every group has the table; "" where the configuration names it under `tables`. `plan`: the kind of plan that it gets
    (see `memgap.study.plan`). `wanted`: the files that the target `tables` asks for, where the section `when` of the
    configuration is not empty; the others are made where something reads them. Without `of`, `when` is the section
    whose groups the table is of, all of them, where the configuration does not name it. `shown`: the files in the
    report. `target`: the target of Snakemake's that asks for it alone, if it has one. `digits`: significant digits of
    numbers in CSV files, all that tell a number apart where 0.
    """

    name: str
    title: str
    writes: Mapping[str, str]
    of: str = ""
    reads: tuple[str, ...] = ()
    plan: str = ""
    wanted: tuple[str, ...] = ()
    when: str = ""
    shown: tuple[str, ...] = ()
    target: str = ""
    caption: str = ""
    category: str = "Tables"
    settings: Mapping[str, str] = field(default_factory=dict)
    digits: int = 9


@cache
def tables() -> dict[str, TableSpec]:
    """Return all tables by name."""
    return {arguments["name"]: TableSpec(**arguments) for arguments in declared("TABLE", *FOLDERS).values()}


@cache
def modules() -> dict[str, str]:
    """Return the module of each table by its name."""
    return {arguments["name"]: module for module, arguments in declared("TABLE", *FOLDERS).items()}


def table_of(setting: str, file: str) -> TableSpec | None:
    """Return the table that writes a file of that name for the groups that a setting names, or None."""
    section = setting_of(setting).section
    own = (table for table in tables().values() if table.of and setting_of(table.of).section == section)
    return next((table for table in own if file in table.writes), None)


def schema() -> dict[str, Any]:
    """Return the JSON schema of each table that a configuration can name."""
    return {
        name: settings_schema(table.reads, f"{table.title}.", table.settings)
        for name, table in tables().items()
        if not table.of
    }
