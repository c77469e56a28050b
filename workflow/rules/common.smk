# What the rules share: the expanded configuration and the names of files. What computes is in src/memgap/workflow.
import os

from memgap.commands.where import tell_where
from memgap.config.reading import check_files
from memgap.errors import UserError
from memgap.host.inherited import inherited_text
from memgap.kinds.locust.environment import locust_files
from memgap.declared.tables import GROUP, tables as table_specs
from memgap.workflow import load_study, prepare_jobs, script, targets
from memgap.workflow.code import code_of
from memgap.workflow.rules import Rules

try:
    check_files(workflow.configfiles)
    STUDY = load_study(config)
    prepare_jobs(STUDY)
except UserError as error:
    raise WorkflowError(f"memgap: {error}")

CONFIG = STUDY.config
LOCUST_NOTE, LOCUST_LOCK = locust_files()
ASK = Rules(STUDY, WorkflowError, LOCUST_NOTE)
# what recorded points are restored by, such as the rule of the steady part
RESTORED_BY = (
    code_of(
        "memgap.stats.averaging",
        "memgap.recorded.load",
        "memgap.kinds.kind",
        "memgap.kinds.offline.kind",
    )
    if CONFIG["recorded"]
    else []
)


# set above; a job that is run elsewhere has it too
envvars:
    "MEMGAP_CONFIG",


def in_report(path, category, **labels):
    """A file in the report, under the caption of its rule's params; a page goes first, since "as" is before "csv"."""
    file = path.rpartition("/")[2]
    kind = (file.partition("}.")[2] or file.partition(".")[2]).replace(
        "html", "as a page"
    )
    return report(
        path,
        caption="../report/entry.rst",
        category=category,
        labels={**labels, "file": kind},
    )


def advice_in_report(ending):
    return in_report(f"results/advisor/{{model}}.{ending}", "Advice", model="{model}")


def table_outputs(spec):
    """The files of a table's declaration, as a rule writes them."""
    outputs = dict(spec.writes)
    for name, path in outputs.items():
        if name in spec.shown:
            whose = GROUP if spec.of else spec.name
            outputs[name] = in_report(path, spec.category, table=whose)
        elif path.endswith("/"):
            outputs[name] = directory(path)
    return outputs
