# memgap: where large-batch LLM inference hits the GPU memory wall.
# The rules are in workflow/rules, what they run in src/memgap, what is measured in config/.
from snakemake.utils import min_version

from memgap.config.load import has_points

min_version("9.0")


if not has_points(config):

    configfile: workflow.source_path("config/config.yaml")


include: "workflow/rules/common.smk"


# A workstation runs one server at a time whatever -j is; a cluster is not held back by it.
resource_scopes:
    server="local",
    gpu="local",


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        targets.figure_files(STUDY),
        targets.advice_files(STUDY),
        targets.table_files(STUDY),


rule figures:
    input:
        targets.figure_files(STUDY),


rule tables:
    input:
        targets.table_files(STUDY),
        targets.advice_files(STUDY),


# The figures and tables of a kind of measurement, such as `snakemake tuning`.
for target in targets.target_names():

    rule:
        name:
            target
        input:
            ASK.target(target),


include: "workflow/rules/models.smk"
include: "workflow/rules/sessions.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/advisor.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/labs.smk"
include: "workflow/rules/figures.smk"


onsuccess:
    if "MEMGAP_SAYS_WHERE" not in os.environ:
        print()
        tell_where(STUDY)
