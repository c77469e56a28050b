# Tunings: a race is one job, which takes the winner of the tier before from its outcome; then tables and figures.
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
        server=1,
        gpu=race_gpus,
        nodes=CONFIG["resources"]["nodes"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=runtime_of_session,
    params:
        plan=lambda wildcards: canonical_json(
            race_plan(tuning_plan(wildcards.tuning), wildcards.tier)
        ),
    message:
        "Race {wildcards.tier} of {wildcards.model} ({wildcards.tuning})"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.tuning:q} --model {wildcards.model:q}"
        " --dataset {wildcards.dataset:q} --tier {wildcards.tier:q} --results results --log {log:q}"


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
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.tuning:q} --results results 2> {log:q}"


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
        "python {input.script:q} --figure {wildcards.figure:q} --table {input.table:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"
