"""What Snakemake makes of a configuration: figures and tables with the files that they are made from, and targets."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memgap.canonical import content_key
from memgap.declared import DOCUMENTS, MODELS, Read, figures, reads_of, setting_of, tables
from memgap.declared.figures import FigureSpec
from memgap.declared.tables import GROUP, TableSpec
from memgap.errors import UserError
from memgap.foreign.files import kept_file
from memgap.kinds.registry import KINDS
from memgap.labs.plan import run_plan
from memgap.store.results import Results
from memgap.study.plan import plan_of
from memgap.study.study import Study
from memgap.tuning.plan import outcome_path, race_plan, races, tier_before
from memgap.workflow.code import code_of

FORMS = ("pdf", "png", "csv")
NOTHING = "(?!)"
"""The regular expression of no name."""


def groups(study: Study, section: str) -> Mapping[str, Any]:
    """Return the groups of points, or whatever else tables are made of, of a section of the configuration by name."""
    if section not in {kind.section for kind in KINDS}:
        named: Mapping[str, Any] = study.config[section]
        return named
    plans = {name: plan for name, (kind, plan) in study.plans.items() if kind.section == section}
    return {**study.of_section(section), **plans}


def names_of(study: Study, setting: str) -> str:
    """Return the regular expression of the names that a setting can have; of none without a setting."""
    if not setting:
        return NOTHING
    return "|".join(map(re.escape, groups(study, setting_of(setting).section))) or NOTHING


@dataclass(frozen=True)
class Made:
    """A figure or table of one group ("" where the configuration names it itself)."""

    study: Study
    spec: FigureSpec | TableSpec
    group: str = ""

    @property
    def name(self) -> str:
        """What it is called in its declaration."""
        return self.spec.name

    @property
    def category(self) -> str:
        """Its place in the report."""
        return self.spec.category

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the configuration names for it; raises UserError where it is not in there."""
        if self.spec.of:
            section = setting_of(self.spec.of).section
            if self.group not in groups(self.study, section):
                known = ", ".join(groups(self.study, section)) or "none"
                raise UserError(f"config: {section}.{self.group} is missing; known are {known}.")
            return {self.spec.of: self.group}
        part = "figures" if isinstance(self.spec, FigureSpec) else "tables"
        found: Mapping[str, Any] | None = self.study.config[part].get(self.spec.name)
        if found is None and isinstance(self.spec, TableSpec) and self.spec.when:
            wanted = [read.setting for read in reads_of(self.spec.reads)]
            found = {name: list(groups(self.study, setting_of(name).section)) for name in wanted}
        if found is None:
            wanted = [setting_of(read.setting).what for read in reads_of(self.spec.reads) if read.name != MODELS]
            raise UserError(f"config: {part}.{self.spec.name} is missing; name the {wanted[0]} that it is made from.")
        return found

    @property
    def reads(self) -> dict[str, list[str]]:
        """The files of each entry of its `reads`; those of a setting that was left out are none."""
        return {read.name: list(self._files(read)) for read in reads_of(self.spec.reads) if read.name != MODELS}

    @property
    def options(self) -> list[str]:
        """The same as a script takes it: name=path."""
        return [f"{name}={path}" for name, paths in self.reads.items() for path in paths]

    @property
    def files(self) -> list[str]:
        """All that it is made from: those files, and what was measured of its group."""
        return [path for paths in self.reads.values() for path in paths] + self._measured()

    @property
    def code(self) -> list[str]:
        """The package's files that make it."""
        which = figures if isinstance(self.spec, FigureSpec) else tables
        return code_of(which.modules()[self.spec.name], which.COMMAND)

    @property
    def plan(self) -> str:
        """What tells its part of the configuration apart from another one."""
        own = plan_of(self.study, self.spec.plan, self.group) if self.spec.plan else {}
        models = plan_of(self.study, "roofline", "settings") if MODELS in self.spec.reads else {}
        return content_key({**own, **models})

    @property
    def heading(self) -> str:
        """What the report says of it."""
        return f"**{self.spec.title}.** {' '.join(self.spec.caption.split())}".replace(GROUP, self.group)

    @property
    def paper_option(self) -> list[str]:
        """How a script is told where the paper's numbers are."""
        folder = self.study.config["paper_reference"]
        overlaid = isinstance(self.spec, FigureSpec) and self.spec.paper and folder
        return ["--paper-reference", folder] if overlaid else []

    @property
    def group_option(self) -> list[str]:
        """How a script is told which plan a figure gets: its group's, or the one of the configuration's settings."""
        return ["--name", self.group or "settings"] if self.spec.plan else []

    @property
    def outputs(self) -> dict[str, str]:
        """The files that are made, by name."""
        if isinstance(self.spec, FigureSpec):
            return {form: f"figures/{self.spec.path(self.group)}.{form}" for form in FORMS}
        return {name: path.replace(GROUP, self.group) for name, path in self.spec.writes.items()}

    @property
    def wanted(self) -> list[str]:
        """The files of a table that the target `tables` asks for."""
        spec = self.spec
        if not isinstance(spec, TableSpec) or (spec.when and not self.study.config[spec.when]):
            return []
        return [path for name, path in self.outputs.items() if not spec.of or name in spec.wanted]

    def _files(self, read: Read) -> Iterator[str]:
        named = self.settings.get(read.setting, [])
        for group in [named] if isinstance(named, str) else named:
            if read.table in DOCUMENTS:
                wanted = read.table != "verified" or self.study.config["advisor"]["verify"]
                yield from (DOCUMENTS[read.table].format(one) for one in self.study.models_of(group) if wanted)
            elif (table := tables.table_of(read.setting, read.table)) is not None:
                yield table.writes[read.table].replace(GROUP, group)

    def _measured(self) -> list[str]:
        if isinstance(self.spec, FigureSpec) or not self.spec.of or self.spec.of == "predictions":
            return []
        if self.spec.of == "tuning":
            return outcomes(self.study, self.group)
        if self.spec.of == "lab":
            return [str(Results(Path("results")).lab(self.group))]
        sessions = [f"results/sessions/{session}.json" for session in self.study.sessions_of(self.group)]
        imported = kept_file(Path("results"), self.group)
        return sessions + ([str(imported)] if self.spec.name == "points" and imported.exists() else [])


def outcomes(study: Study, tuning: str) -> list[str]:
    """Return the outcomes of all races of a tuning."""
    plan = study.tunings[tuning]
    return [str(outcome_path(Path("results"), plan, subject, tier)) for subject, tier in races(plan)]


def figure_at(study: Study, path: str) -> Made:
    """Return the figure that goes to a path below figures/, given without its ending; raises UserError."""
    for figure in figures.figures().values():
        own = re.fullmatch(_path_pattern(figure), path)
        if own is not None:
            return Made(study, figure, own.groupdict().get("group", ""))
    raise UserError(f"no figure goes to figures/{path}.")


def figure_paths() -> str:
    """Return the regular expression of the paths of all figures below figures/, without their endings."""
    return "|".join(_path_pattern(figure).replace("?P<group>", "?:") for figure in figures.figures().values())


def _path_pattern(figure: FigureSpec) -> str:
    return re.escape(figure.path("\0")).replace(re.escape("\0"), "(?P<group>[^/]+)")


def all_figures(study: Study) -> list[Made]:
    """Return the figures of a configuration: those that it names, and those that each group has."""
    named = [Made(study, figures.figures()[name]) for name in study.config["figures"]]
    return named + _of_groups(study, figures.figures().values())


def all_tables(study: Study) -> list[Made]:
    """Return the tables of a configuration: those that it names, and those that each group has."""
    whole = [spec for spec in tables.tables().values() if not spec.of and spec.when and study.config[spec.when]]
    named = dict.fromkeys([*study.config["tables"], *(spec.name for spec in whole)])
    return [Made(study, tables.tables()[name]) for name in named] + _of_groups(study, tables.tables().values())


def _of_groups(study: Study, specs: Iterable[FigureSpec | TableSpec]) -> list[Made]:
    own = [spec for spec in specs if spec.of]
    return [Made(study, spec, group) for spec in own for group in groups(study, setting_of(spec.of).section)]


def figure_files(study: Study) -> list[str]:
    """Return what the target `figures` asks for."""
    return [path for figure in all_figures(study) for path in figure.outputs.values()]


def table_files(study: Study) -> list[str]:
    """Return what the target `tables` asks for, the advice apart."""
    return [path for table in all_tables(study) for path in table.wanted]


def advice_files(study: Study) -> list[str]:
    """Return the advice on every model of the figures' sweeps, verified where the configuration asks for it."""
    kinds = ("yaml", "html", *(("verified.yaml", "verified.html") if study.config["advisor"]["verify"] else ()))
    models = dict.fromkeys(model for sweep in study.figure_sweeps() for model in study.models_of(sweep))
    return [f"results/advisor/{model}.{kind}" for model in models for kind in kinds]


def target_names() -> list[str]:
    """Return the targets beside `figures` and `tables` that figures and tables belong to."""
    wanted = [one.target for one in figures.figures().values()] + [one.target for one in tables.tables().values()]
    return [target for target in dict.fromkeys(wanted) if target]


def target_files(study: Study, target: str) -> list[str]:
    """Return the figures and tables of a target, such as `tuning`, and the tables of the groups that have the figures.

    Raises UserError where there is no such group.
    """
    members = [figure for figure in figures.figures().values() if figure.target == target]
    sections = {setting_of(figure.of).section for figure in members if figure.of}
    for section in sections:
        if not groups(study, section):
            raise UserError(
                f"config: {section} is missing; describe one there, or take --configfile config/{target}.yaml."
            )
    made = _of_groups(study, members) + [Made(study, figure) for figure in members if not figure.of]
    beside = [one for one in all_tables(study) if _section_of(one.spec) in sections]
    alone = [Made(study, table) for table in tables.tables().values() if table.target == target]
    beside += [one for one in alone if one.settings]  # asked, since a mistake is told there
    return [path for one in made for path in one.outputs.values()] + [path for one in beside for path in one.wanted]


def lab_key(study: Study, lab: str) -> str:
    """Return what tells the run of a lab from another one."""
    return content_key(run_plan(study.labs[lab]))


def lab_target(lab: str) -> str:
    """Return the target of everything of one lab, such as `lab05`."""
    return f"lab{lab}" if lab[0].isdigit() else f"lab-{lab}"


def lab_files(study: Study, lab: str) -> list[str]:
    """Return the figure and the tables of one lab."""
    made = [one for one in [*all_figures(study), *all_tables(study)] if one.spec.of == "lab" and one.group == lab]
    return [path for one in made for path in (one.wanted or one.outputs.values())]


def _section_of(spec: FigureSpec | TableSpec) -> str:
    """Return the section of the configuration whose groups a figure or table is of, each or all; "" for others."""
    return setting_of(spec.of).section if spec.of else spec.when if isinstance(spec, TableSpec) else ""


def model_names(study: Study) -> str:
    """Return the regular expression of the models that advice can be asked for."""
    names = sorted({name for sweep in study.sweeps for name in study.models_of(sweep)})
    return "|".join(map(re.escape, names)) or NOTHING


def advised_table(study: Study, model: str) -> str:
    """Return the table that the advice on a model is from; raises UserError where no figure's sweep measures it."""
    sweep = study.advised_sweep(model)
    if sweep is None:
        raise UserError(f"no figure's sweep measures the model {model!r}.")
    return f"results/tables/{sweep}.parquet"


def twin_tables(study: Study, model: str) -> list[str]:
    """Return the tables of all sweeps that measure a model."""
    return [f"results/tables/{sweep}.parquet" for sweep in study.sweeps if model in study.models_of(sweep)]


def fleet_tables(study: Study, fleet: str) -> list[str]:
    """Return the tables that a fleet is planned from; raises UserError where the configuration has no such fleet."""
    if fleet not in study.config["fleets"]:
        raise UserError(f"config: fleets.{fleet} is missing; describe the fleet there.")
    return [f"results/tables/{sweep}.parquet" for sweep in study.config["fleets"][fleet]["sweeps"]]


def race_before(study: Study, wildcards: Mapping[str, str]) -> list[str]:
    """Return the outcome that a race builds on; none for the first tier. Raises UserError for an unknown tuning."""
    plan = tuning_plan(study, wildcards["tuning"])
    before = tier_before(plan, wildcards["tier"])
    subject = (wildcards["model"], wildcards["dataset"])
    return [str(outcome_path(Path("results"), plan, subject, before))] if before else []


def race_key(study: Study, wildcards: Mapping[str, str]) -> str:
    """Return what tells a race's plan from another one."""
    return content_key(race_plan(tuning_plan(study, wildcards["tuning"]), wildcards["tier"]))


def tuning_plan(study: Study, name: str) -> Mapping[str, Any]:
    """Return the plan of a tuning; raises UserError where the configuration has no such tuning."""
    if name not in study.tunings:
        known = ", ".join(study.tunings) or "none"
        raise UserError(f"config: tuning.{name} is missing; known are {known}.")
    return study.tunings[name]


def sessions_key(study: Study) -> str:
    """Return what tells the plans of all sessions from others."""
    return content_key({session: study.session_plan(session) for session in study.sessions})


def check_paths(study: Study) -> None:
    """Raises UserError where the names of two groups make one and the same file, such as `x` and `x.goodput`."""
    seen: dict[str, str] = {}
    named = [Made(study, table) for table in tables.tables().values() if not table.of]
    for made in [*named, *all_figures(study), *_of_groups(study, tables.tables().values())]:
        what = made.group or made.spec.name
        for path in made.outputs.values():
            if path in seen:
                raise UserError(f"config: {seen[path]!r} and {what!r} would both make {path}; rename one.")
            seen[path] = what
