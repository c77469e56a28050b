# What the rules share: the expanded configuration and the names of files. What computes is in src/memgap/workflow.
import functools
import os

from memgap.cluster.resources import session_runtime_min
from memgap.commands.where import tell_where
from memgap.errors import UserError
from memgap.kinds.locust.environment import locust_files
from memgap.tables.spec import GROUP, tables as table_specs
from memgap.workflow import (
    jobs,
    load_study,
    plan_key,
    prepare_jobs,
    script_path,
    targets,
)
from memgap.workflow.code import code_of

try:
    STUDY = load_study(config)
    prepare_jobs(STUDY, workflow.basedir)
except UserError as error:
    raise WorkflowError(f"memgap: {error}")

CONFIG = STUDY.config


# set above; a job that is run elsewhere has them too
envvars:
    "MEMGAP_CONFIG",


def told(function):
    """The function, with what the user has to mend in the words that the package has for it."""

    @functools.wraps(function)
    def tell(*given):
        try:
            return function(*given)
        except UserError as error:
            raise WorkflowError(f"memgap: {error}")

    return tell


def files_of(target):
    """What a target asks for, which is known once it is wanted."""
    return told(lambda wildcards: targets.target_files(STUDY, target))


def script(name):
    """The path of an entry point, as the rules' shell sees it."""
    return script_path(workflow.basedir, name)


def plan(kind):
    """A job's slice of the configuration: it is done again when this has changed, and only then."""
    return lambda wildcards: plan_key(STUDY, kind, *wildcards)


def in_report(path, category, **labels):
    """A file in the report, under the caption of its rule's params; a page goes first, since "as" is before "csv"."""
    kind = path.rpartition("}.")[2].replace("html", "as a page")
    return report(
        path,
        caption="../report/entry.rst",
        category=category,
        labels={**labels, "file": kind},
    )
