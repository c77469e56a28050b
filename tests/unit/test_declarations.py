"""Figures and tables say all of themselves, in literals that are read without importing their modules."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from memgap.declared import DOCUMENTS, MODELS, SETTINGS, arguments_in, reads_of
from memgap.declared import figures as figure_specs
from memgap.declared import tables as table_specs
from memgap.declared.figures import FigureSpec
from memgap.declared.tables import TableSpec
from memgap.errors import UserError
from memgap.tables.inputs import Inputs, columns_of
from memgap.tables.reference import page_with_sections
from memgap.workflow import load_study
from memgap.workflow.code import code_of
from memgap.workflow.targets import Made, advice_files, all_figures, figure_at, figure_files, table_files, target_files
from tests.support.records import small_config

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES, TABLES = figure_specs.figures(), table_specs.tables()
SPECS: dict[str, FigureSpec | TableSpec] = {
    **{f"figure {name}": figure for name, figure in FIGURES.items()},
    **{f"table {name}": table for name, table in TABLES.items()},
}
MODULES = {
    **{f"figure {name}": module for name, module in figure_specs.modules().items()},
    **{f"table {name}": module for name, module in table_specs.modules().items()},
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_is_read_is_what_the_module_declares(name: str) -> None:
    module = import_module(MODULES[name])
    spec = SPECS[name]
    is_figure = isinstance(spec, FigureSpec)
    assert (module.FIGURE if is_figure else module.TABLE) == spec
    assert callable(module.draw if is_figure else module.make)
    for read in reads_of(spec.reads):
        if read.name != MODELS and read.table not in DOCUMENTS:
            assert Inputs()[read.name].empty and columns_of(read.name).names
    if is_figure:
        assert MODULES[name] == f"memgap.figures.{spec.name}" and spec.caption.strip()


def test_names_are_of_one_declaration_each() -> None:
    assert SPECS.keys() == MODULES.keys()
    files = [path for table in TABLES.values() for path in table.writes.values()]
    twice = {path for path in files if files.count(path) > 1}
    assert twice == {"results/tables/{group}.kernels.csv"}, "of sweeps and offline studies, which share no name"


def test_a_declaration_of_other_than_literals_is_refused() -> None:
    assert arguments_in("x = 1\n", "FIGURE") is None
    assert arguments_in('FIGURE = FigureSpec(name="a", reads=(), caption="""\n(b\n)\n""")\n', "FIGURE") == {
        "name": "a",
        "reads": (),
        "caption": "\n(b\n)\n",
    }
    with pytest.raises(ValueError, match="malformed"):
        arguments_in("FIGURE = FigureSpec(name=NAME)\n", "FIGURE")
    with pytest.raises(ValueError, match="other than a call"):
        arguments_in("FIGURE = FigureSpec(\n", "FIGURE")


def test_the_page_of_figures_is_current() -> None:
    page = (REPOSITORY / "docs/figures.md").read_text(encoding="utf-8")
    assert page == page_with_sections(page), "make docs writes it anew"


def users_of(module: str) -> set[str]:
    """Return the figures and tables that run a module."""
    path = f"src/memgap/{module}"
    return {name for name, one in MODULES.items() if any(used.endswith(path) for used in code_of(one))}


def test_what_is_edited_makes_stale_what_runs_it() -> None:
    assert users_of("figures/stalls.py") == {"figure fig08", "figure fig09"}
    assert users_of("figures/fig03.py") == {"figure fig03"}
    assert users_of("tables/points.py") == {"table points", "table lab", "table lab_arms", "table lab_parity"}, (
        "tables and figures of it are made from its file"
    )
    assert users_of("tables/inputs.py") == MODULES.keys()
    assert {"figure roofline", "table predictions"} <= users_of("roofline/gpus.yaml")
    assert "figure fig02" not in users_of("roofline/gpus.yaml")
    assert {f"table {name}" for name in ("points", "offline", "comparison")} <= users_of("tables/entries.py")


@pytest.mark.parametrize("name", ["table points", "table offline", "table claims", "figure fig02", "figure fig08"])
def test_figures_and_tables_run_nothing_that_measures(name: str) -> None:
    used = code_of(MODULES[name])
    assert not [path for path in used for part in ("session", "host", "commands") if f"memgap/{part}/" in path]


def study(**more: Any) -> Any:
    """Return a study with one sweep and two figures."""
    config = small_config()
    config["figures"] = {"fig02": {"sweep": "small"}, "fig10": {"sweep": "small"}}
    return load_study({**config, **more})


def test_a_figure_is_made_from_what_it_declares() -> None:
    found = study()
    made = figure_at(found, "fig10")
    assert made.reads == {
        "sweep.points": ["results/tables/small.parquet"],
        "sweep.advice": ["results/advisor/tiny-opt.yaml"],
    }
    assert made.options[0] == "sweep.points=results/tables/small.parquet"
    assert made.heading.startswith("**Figure 10: the trade-off behind B_opt.** Left, throughput")
    assert made.paper_option == [] and figure_at(study(paper_reference="p"), "fig02").paper_option[1] == "p"
    assert {one.spec.name for one in all_figures(found)} == {"fig02", "fig10"}
    assert figure_files(found)[:2] == ["figures/fig02.pdf", "figures/fig02.png"]
    points = Made(found, TABLES["points"], "small")
    assert points.files == [f"results/sessions/{name}.json" for name in found.sessions]


def test_targets_are_what_the_configuration_names() -> None:
    assert table_files(study()) == [f"results/tables/small.{kind}" for kind in ("parquet", "csv", "html")]
    assert "results/tables/small.goodput.csv" in table_files(study(slos={"fast": {"ttft_ms": 5}}))
    assert advice_files(study()) == ["results/advisor/tiny-opt.yaml", "results/advisor/tiny-opt.html"]


def test_what_is_not_named_is_one_sentence() -> None:
    found = study()
    with pytest.raises(UserError, match=r"config: figures\.fig05 is missing; name the offline study"):
        _ = figure_at(found, "fig05").files
    with pytest.raises(UserError, match=r"config: loadtests\.x is missing; known are none"):
        _ = figure_at(found, "x.loadtest").files
    with pytest.raises(UserError, match=r"config: tuning is missing; describe one there, or take --configfile"):
        target_files(found, "tuning")
    with pytest.raises(UserError, match=r"no figure goes to figures/fig99"):
        figure_at(found, "fig99")


@pytest.mark.parametrize("name", ["small.goodput", "claims", "small.kernels"])
def test_names_whose_files_would_collide_are_refused(name: str) -> None:
    config = small_config()
    config["sweeps"][name] = config["sweeps"]["small"]
    with pytest.raises(UserError, match=r"would both make results/tables/.*; rename one\."):
        load_study(config)


def test_settings_of_figures_and_tables_are_in_the_schema() -> None:
    schema = figure_specs.schema()
    assert schema["timeshare"]["required"] == ["study"] and set(schema["timeshare"]["properties"]) == {"study", "sweep"}
    assert schema["fig02"]["properties"]["sweep"]["description"] == SETTINGS["sweep"].description
    assert "loadtest" not in schema, "every load test has it"
    assert table_specs.schema()["roofline_error"]["properties"]["sweeps"]["type"] == "array"
