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


localrules:
    all,
    figures,
    tables,
    synthetic_model,
    hub_model,
    staged,
    dataset,
    collect,
    offline_tables,
    loadtest,
    locust_environment,
    loadtest_tables,
    loadtest_figure,
    advise,
    goodput,
    series,
    fig01,
    fig02,
    fig03,
    fig04,
    fig05,
    fig06,
    fig07,
    fig08,
    fig09,
    fig10,
    fig11,
    fig12,
    fig13,
    timeshare,
    comparison_tables,
    static_batching,
    memory_over_time,
    kv_waste,
    hf_vs_vllm,
    roofline,
    predict,
    roofline_error,
    kernels,
    plan_fleet,
    tuning,
    tuning_tables,
    tuning_figure,
    tab01,
    tab02,
    tab03,
    tab04,
    claims,


rule all:
    default_target: True
    input:
        figure_files(),
        advice_files(),
        table_files(),
        loadtest_outputs(),
        lambda wildcards: tuning_files() if STUDY.tunings else [],


rule figures:
    input:
        figure_files(),


rule tables:
    input:
        table_files(),
        advice_files(),


include: "workflow/rules/models.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/sessions.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/offline.smk"
include: "workflow/rules/loadtest.smk"
include: "workflow/rules/requests.smk"
include: "workflow/rules/advisor.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/comparison.smk"
include: "workflow/rules/planner.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/roofline.smk"
include: "workflow/rules/tuning_common.smk"
include: "workflow/rules/tuning.smk"


onsuccess:
    say_where_to_look()
