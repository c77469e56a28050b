# Tunings: a race is one job, which takes the winner of the tier before from its outcome; then tables and figures.
from pathlib import Path

from memgap.canonical import canonical_json
from memgap.tuning.plan import outcome_path, race_plan, races, tier_before

TUNING_FIGURES = ["speedup", "pareto", "factors"]


def tuning_in_report(name):
    return report(
        f"results/tuning/{{tuning}}/{name}.csv",
        caption="../report/tuning.rst",
        category="Tuning",
        labels={"tuning": "{tuning}", "file": name},
    )


def tuning_figure_in_report(kind):
    return report(
        f"figures/tuning/{{tuning}}.{{figure}}.{kind}",
        caption="../report/tuning.rst",
        category="Tuning",
        labels={"tuning": "{tuning}", "file": f"{{figure}}.{kind}"},
    )


def tuning_plan(name):
    """The plan of a tuning; missing is an error only where it is wanted."""
    if name not in STUDY.tunings:
        raise WorkflowError(
            f"memgap: config: tuning.{name} is missing; known are {', '.join(STUDY.tunings) or 'none'}."
        )
    return STUDY.tunings[name]


def race_files(name):
    """The outcomes of all races of a tuning."""
    tuned = tuning_plan(name)
    return [
        str(outcome_path(Path("results"), tuned, subject, tier))
        for subject, tier in races(tuned)
    ]


def race_before(wildcards):
    """The outcome that a race builds on; none for the first tier."""
    tuned = tuning_plan(wildcards.tuning)
    before = tier_before(tuned, wildcards.tier)
    subject = (wildcards.model, wildcards.dataset)
    return (
        [str(outcome_path(Path("results"), tuned, subject, before))] if before else []
    )


def race_image(wildcards):
    (engine,) = tuning_plan(wildcards.tuning)["engines"].values()
    return engine["image"]


def race_gpus(wildcards):
    return tuning_plan(wildcards.tuning)["settings"]["gpus"]


def tuning_files():
    if not STUDY.tunings:
        raise WorkflowError(
            "memgap: config: tuning is missing; try --configfile config/tuning.yaml."
        )
    return [
        file
        for name in STUDY.tunings
        for file in (
            f"results/tuning/{name}/optimization_summary.csv",
            *(
                f"figures/tuning/{name}.{figure}.{kind}"
                for figure in TUNING_FIGURES
                for kind in ("pdf", "png", "csv")
            ),
        )
    ]


rule tuning:
    input:
        lambda wildcards: tuning_files(),


rule tuning_race:
    input:
        before=race_before,
        script=ancient(script("run_tuning.py")),
    output:
        "results/tuning/{tuning}/{model}/{dataset}/{tier}.json",
    log:
        "logs/tuning/{tuning}/{model}.{dataset}.{tier}.log",
    wildcard_constraints:
        tuning="[^/]+",
        model="[^/]+",
        dataset="[^/]+",
        tier="[^/]+",
    container:
        race_image
    threads: 1
    resources:
        gpu=race_gpus,
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=session_runtime,
    params:
        plan=lambda wildcards: canonical_json(
            race_plan(tuning_plan(wildcards.tuning), wildcards.tier)
        ),
    message:
        "Race {wildcards.tier} of {wildcards.model} ({wildcards.tuning})"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name {wildcards.tuning} --model {wildcards.model}"
        " --dataset {wildcards.dataset} --tier {wildcards.tier} --results results --log {log}"


rule tuning_tables:
    input:
        races=lambda wildcards: race_files(wildcards.tuning),
        script=script("tuning_tables.py"),
        code=[
            package_path(f"tuning/{name}.py")
            for name in ("results", "summary", "formulas")
        ],
    output:
        results=tuning_in_report("benchmarking_results"),
        summary=tuning_in_report("optimization_summary"),
        measurements=tuning_in_report("measurements"),
        experiments=directory("results/tuning/{tuning}/experiments"),
    log:
        "logs/tuning/{tuning}/tables.log",
    wildcard_constraints:
        tuning="[^/]+",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("tuning"),
    message:
        "Tables of the tuning {wildcards.tuning}"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name {wildcards.tuning} --results results 2> {log}"


rule tuning_figure:
    input:
        table="results/tuning/{tuning}/benchmarking_results.csv",
        script=script("plot_tuning.py"),
        code=package_path("tuning/figures.py"),
    output:
        pdf=tuning_figure_in_report("pdf"),
        png=tuning_figure_in_report("png"),
        csv=tuning_figure_in_report("csv"),
    log:
        "logs/tuning/{tuning}/{figure}.log",
    wildcard_constraints:
        tuning="[^/]+",
        figure="|".join(TUNING_FIGURES),
    conda:
        "../../envs/workflow.yaml"
    message:
        "Figure {wildcards.figure} of the tuning {wildcards.tuning}"
    shell:
        "python {input.script} --figure {wildcards.figure} --table {input.table}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"
