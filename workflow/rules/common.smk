# What the rules share: the expanded configuration and the names of files. What computes is in src/memgap.
import os
import re

from memgap.cluster.resources import session_gpus, session_runtime_min
from memgap.containers.jobs import image_for_jobs
from memgap.errors import UserError
from memgap.kinds.locust.environment import installed_note, locust_files
from memgap.kinds.locust.point import is_loadtest
from memgap.models.staging import hub_model_name
from memgap.models.staging import model_folder_name
from memgap.commands.where import tell_where
from memgap.workflow import (
    load_study,
    package_path,
    plan_text,
    prepare_jobs,
    script_path,
)

try:
    STUDY = load_study(config)
    prepare_jobs(STUDY, workflow.basedir)
except UserError as error:
    raise WorkflowError(f"memgap: {error}")

CONFIG = STUDY.config
MODEL_NAMES = "|".join(
    re.escape(name)
    for name in sorted(
        {name for sweep in STUDY.sweeps for name in STUDY.models_of(sweep)} or {"none"}
    )
)


def script(name):
    """The path of an entry point, as the rules' shell sees it."""
    return script_path(workflow.basedir, name)


def plan(kind):
    """A job's slice of the configuration: it is done again when this has changed, and only then."""
    return lambda wildcards: plan_text(STUDY, kind, *wildcards)


# --- what `all` makes


def figure_files():
    return [
        f"figures/{name}.{kind}"
        for name in CONFIG["figures"]
        for kind in ("pdf", "png", "csv")
    ]


def advice_files():
    verified = ("verified.yaml", "verified.html") if CONFIG["advisor"]["verify"] else ()
    return [
        f"results/advisor/{model}.{kind}"
        for sweep in STUDY.figure_sweeps()
        for model in STUDY.models_of(sweep)
        for kind in ("yaml", "html", *verified)
    ]


def table_files():
    kinds = ("parquet", "csv", "html", *(("goodput.csv",) if CONFIG["slos"] else ()))
    names = [f"{sweep}.{kind}" for sweep in STUDY.sweeps for kind in kinds]
    names += [f"{study}.offline.csv" for study in STUDY.offline]
    names += [
        f"{name}.{kind}"
        for name in CONFIG["tables"]
        for kind in ("csv", "html", *(("md", "tex") if name.startswith("tab") else ()))
    ]
    names += [f"{name}.predictions.csv" for name in CONFIG["predictions"]]
    return [f"results/tables/{name}" for name in names]


wildcard_constraints:
    sweep="|".join(re.escape(name) for name in STUDY.sweeps) or "none",
    study="|".join(re.escape(name) for name in STUDY.offline) or "none",
    loadtest="|".join(re.escape(name) for name in STUDY.loadtests) or "none",
    prediction="|".join(re.escape(name) for name in CONFIG["predictions"]) or "$^",


# a sweep's name may have a dot, so the tables of its requests have to be told from its own
ruleorder:
    tab01
    > tab02
    > tab03
    > tab04
    > claims
    > roofline_error
    > predict
    > goodput
    > series
    > kernels
    > comparison_tables
    > collect
ruleorder: verify > advise


# --- sessions


def session_records(wildcards):
    return [STUDY.points[key].record for key in STUDY.sessions[wildcards.session]]


def session_model(wildcards):
    if CONFIG["recorded"]:
        return []
    model = session_records(wildcards)[0]["model"]
    folder, staged = model_folder_name(model), hub_model_name(model)
    if staged in STUDY.hub_models:
        return ancient(f"results/hub/{staged}.json")
    return ancient(f"results/models/{folder}/config.json") if folder else []


def session_datasets(wildcards):
    if CONFIG["recorded"]:
        return []
    keys = {
        record["dataset"]["key"]
        for record in session_records(wildcards)
        if "dataset" in record
    }
    return [ancient(f"results/datasets/{key}.npz") for key in sorted(keys)]


def engine_image(record):
    """The image of a point's engine, as a rule names it."""
    return image_for_jobs(CONFIG["engines"][record["engine"]["name"]])


def session_locust(wildcards):
    """Locust's environment, where the session's points need it: the one that is there, or the one to be made."""
    if CONFIG["recorded"] or not is_loadtest(session_records(wildcards)[0]):
        return []
    return ancient(str(installed_note() or LOCUST_NOTE))


def session_image(wildcards):
    return engine_image(session_records(wildcards)[0])


def verified_image(wildcards):
    points = STUDY.verification_plan(wildcards.model)["points"]
    return engine_image(points[0]["record"]) if points else None


def gpus_of_session(wildcards):
    return session_gpus(session_records(wildcards)[0], CONFIG["resources"])


def gpus_of_verification(wildcards):
    points = STUDY.verification_plan(wildcards.model)["points"]
    return max(
        (session_gpus(point["record"], CONFIG["resources"]) for point in points),
        default=0,
    )


def runtime_of_session(wildcards, attempt):
    return session_runtime_min(CONFIG["resources"], attempt)


# --- load tests

LOCUST_NOTE, LOCUST_LOCK = locust_files(workflow.basedir)


def loadtest_outputs():
    """What a load test leaves to look at, of all load tests."""
    tables = (
        f"results/tables/{name}.{kind}"
        for name in STUDY.loadtests
        for kind in (
            "loadtest.csv",
            "timeline.csv",
            "comparison.csv",
            "comparison.html",
            "definitions.csv",
        )
    )
    figures = (
        f"figures/{name}.loadtest.{kind}"
        for name in STUDY.loadtests
        for kind in ("pdf", "png", "csv")
    )
    return [*tables, *figures]


def loadtest_files(wildcards):
    """The same, where there is a load test."""
    if not STUDY.loadtests:
        raise WorkflowError(
            "memgap: config: loadtests is missing; describe one there, or take --configfile config/loadtest.yaml."
        )
    return loadtest_outputs()


def loadtest_sessions(wildcards):
    return [
        f"results/sessions/{session}.json"
        for session in STUDY.sessions_of(wildcards.loadtest)
    ]


def loadtest_in_report(path):
    return report(
        path,
        caption="../report/loadtest.rst",
        category="Load tests",
        labels={"load test": "{loadtest}", "file": path.partition("}.")[2]},
    )


# --- tables, advice, figures


def sweep_sessions(wildcards):
    return [
        f"results/sessions/{session}.json"
        for session in STUDY.sessions_of(wildcards.sweep)
    ]


def offline_sessions(wildcards):
    return [
        f"results/sessions/{session}.json"
        for session in STUDY.sessions_of(wildcards.study)
    ]


def advised_table(wildcards):
    sweep = STUDY.advised_sweep(wildcards.model)
    if sweep is None:
        raise WorkflowError(
            f"memgap: no figure's sweep measures the model {wildcards.model!r}."
        )
    return f"results/tables/{sweep}.parquet"


def figure_sweep(name):
    """The sweep that a figure is drawn from; missing is an error only where the figure is wanted."""
    if name not in CONFIG["figures"]:
        raise WorkflowError(
            f"memgap: config: figures.{name} is missing; name the sweep it is drawn from."
        )
    return CONFIG["figures"][name]["sweep"]


def figure_table(name):
    return lambda wildcards: f"results/tables/{figure_sweep(name)}.parquet"


def figure_predictions(name):
    """The predictions that a figure draws beside its sweep; missing is an error only where the figure is wanted."""

    def table(wildcards):
        figure_sweep(name)
        return (
            f"results/tables/{CONFIG['figures'][name]['predictions']}.predictions.csv"
        )

    return table


def roofline_sweeps(wildcards):
    if "roofline_error" not in CONFIG["tables"]:
        raise WorkflowError(
            "memgap: config: tables.roofline_error is missing; name the sweeps that it compares."
        )
    return [
        f"results/tables/{sweep}.parquet"
        for sweep in CONFIG["tables"]["roofline_error"]["sweeps"]
    ]


def roofline_studies(wildcards):
    return [
        f"results/tables/{study}.offline.csv"
        for study in CONFIG["tables"].get("roofline_error", {}).get("studies", [])
    ]


def roofline_code():
    """What counts the work and holds the peaks: editing it predicts anew."""
    return [
        package_path(f"roofline/{name}")
        for name in ("gpus.yaml", "gpus.py", "work.py", "predict.py")
    ]


def comparison_of(name):
    """The sweep of the engines that a figure compares; missing is an error only where the figure is wanted."""
    if name not in CONFIG["figures"]:
        raise WorkflowError(
            f"memgap: config: figures.{name} is missing; name the comparison it is drawn from."
        )
    return CONFIG["figures"][name]["comparison"]


def compared(name):
    """The tables of that comparison, by kind."""
    return lambda wildcards: {
        kind: f"results/tables/{comparison_of(name)}.{kind}.csv"
        for kind in ("engines", "kv", "memory")
    }


def figure_kernels(name):
    return lambda wildcards: f"results/tables/{figure_sweep(name)}.kernels.csv"


def figure_advice(name):
    return lambda wildcards: [
        f"results/advisor/{model}.yaml" for model in STUDY.models_of(figure_sweep(name))
    ]


def offline_study(part, name):
    """The offline study behind a figure or table; missing is an error only where it is wanted."""
    if name not in CONFIG[part]:
        raise WorkflowError(
            f"memgap: config: {part}.{name} is missing; name the offline study it is made from."
        )
    return CONFIG[part][name]["study"]


def offline_tables(part, name, *kinds):
    """The tables of that study, by kind."""
    return lambda wildcards: {
        kind: f"results/tables/{offline_study(part, name)}.{kind}.csv" for kind in kinds
    }


def compared_sweep(name):
    """The table of the online sweep beside an offline study, where one is named."""
    sweep = CONFIG["figures"].get(name, {}).get("sweep")
    return [f"results/tables/{sweep}.parquet"] if sweep else []


def claims_study_tables():
    """The offline study's tables that claims are judged by, where the configuration names a study."""
    study = CONFIG["tables"].get("claims", {}).get("study")
    kinds = ("offline", "classes", "counters", "gpu") if study else ()
    return {kind: f"results/tables/{study}.{kind}.csv" for kind in kinds}


def options_of(files):
    """Each file after the option that is named as its kind."""
    return [text for kind, path in files.items() for text in (f"--{kind}", path)]


def figure_module(name):
    """The module that draws a figure: editing it redraws that figure and no other."""
    return package_path(f"figures/{name}.py")


def study_sweeps(name):
    """The sweeps behind a table of the study; missing is an error only where the table is wanted."""
    if name not in CONFIG["tables"]:
        raise WorkflowError(
            f"memgap: config: tables.{name} is missing; name its sweeps, online and replication."
        )
    return CONFIG["tables"][name]


def study_tables(name):
    return lambda wildcards: {
        part: f"results/tables/{sweep}.parquet"
        for part, sweep in study_sweeps(name).items()
        if part != "study"
    }


def study_advice(name):
    return lambda wildcards: [
        f"results/advisor/{model}.yaml"
        for model in STUDY.models_of(study_sweeps(name)["online"])
    ]


def study_verifications(name):
    """Verifications of the advice, where the configuration has them made."""
    models = (
        STUDY.models_of(study_sweeps(name)["online"])
        if CONFIG["advisor"]["verify"]
        else []
    )
    return [f"results/advisor/{model}.verified.yaml" for model in models]


def study_table_in_report(name, kind):
    return report(
        f"results/tables/{name}.{kind}",
        caption=f"../report/{name}.rst",
        category="Tables",
        labels={"sweep": name, "file": page_first(kind)},
    )


def fleet_tables(wildcards):
    if wildcards.fleet not in CONFIG["fleets"]:
        raise WorkflowError(
            f"memgap: config: fleets.{wildcards.fleet} is missing; describe the fleet there."
        )
    return [
        f"results/tables/{sweep}.parquet"
        for sweep in CONFIG["fleets"][wildcards.fleet]["sweeps"]
    ]


def paper_reference_option():
    folder = CONFIG["paper_reference"]
    return ["--paper-reference", folder] if folder else []


def page_first(kind):
    """The report shows the alphabetically first kind of file at once."""
    return "as a page" if kind == "html" else kind


def table_in_report(kind):
    return report(
        f"results/tables/{{sweep}}.{kind}",
        caption="../report/table.rst",
        category="Tables",
        labels={"sweep": "{sweep}", "file": page_first(kind)},
    )


def advice_in_report(kind):
    return report(
        f"results/advisor/{{model}}.{kind}",
        caption="../report/advice.rst",
        category="Advice",
        labels={"model": "{model}", "file": page_first(kind)},
    )


def verification_in_report(kind):
    return report(
        f"results/advisor/{{model}}.verified.{kind}",
        caption="../report/verified.rst",
        category="Advice",
        labels={"model": "{model}", "file": f"verified, {page_first(kind)}"},
    )


def in_report(name, kind):
    return report(
        f"figures/{name}.{kind}",
        caption=f"../report/{name}.rst",
        category="Figures",
        labels={"figure": name, "file": kind},
    )


def say_where_to_look():
    if "MEMGAP_SAYS_WHERE" not in os.environ:
        print()
        tell_where(STUDY)
