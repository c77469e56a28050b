# One tidy table a sweep, one row a point; failed and missing points are rows too.
localrules:
    collect,


def sweep_sessions(wildcards):
    return [f"results/sessions/{session}.json" for session in STUDY.sessions_of(wildcards.sweep)]


rule collect:
    input:
        plan="results/plans/sweep/{sweep}.json",
        sessions=sweep_sessions,
        script=script("collect.py"),
    output:
        parquet="results/tables/{sweep}.parquet",
        csv=report(
            "results/tables/{sweep}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"sweep": "{sweep}"},
        ),
    log:
        "logs/collect/{sweep}.log",
    message:
        "Table of the sweep {wildcards.sweep}"
    container: None
    shell:
        "python {input.script} --plan {input.plan} --points results/points"
        " --parquet {output.parquet} --csv {output.csv} 2> {log}"
