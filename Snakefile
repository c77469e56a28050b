# memgap: where large-batch LLM inference hits the GPU memory wall.
# The rules are in workflow/rules, what they run in src/memgap, what is measured in config/.
from snakemake.utils import min_version

min_version("9.0")


if not any(config.get(part) for part in ("sweeps", "offline", "loadtests", "tuning")):

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


# What is one of the commands in README.md: the figures and tables of a kind.
rule loadtest:
    input:
        told(lambda wildcards: targets.target_files(STUDY, "loadtest")),


rule tuning:
    input:
        told(lambda wildcards: targets.target_files(STUDY, "tuning")),


rule hf_vs_vllm:
    input:
        told(lambda wildcards: targets.target_files(STUDY, "hf_vs_vllm")),


include: "workflow/rules/models.smk"
include: "workflow/rules/sessions.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/advisor.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/figures.smk"


onsuccess:
    if "MEMGAP_SAYS_WHERE" not in os.environ:
        print()
        tell_where(STUDY)
