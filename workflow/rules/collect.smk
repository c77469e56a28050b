# One tidy table a sweep, one row a point; failed and missing points are rows too.
rule collect:
    input:
        sessions=sweep_sessions,
        script=script("collect.py"),
    output:
        parquet="results/tables/{sweep}.parquet",
        csv=table_in_report("csv"),
        html=table_in_report("html"),
    log:
        "logs/collect/{sweep}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("sweep"),
    message:
        "Table of the sweep {wildcards.sweep}"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name {wildcards.sweep} --points results/points"
        " --parquet {output.parquet} --csv {output.csv} --html {output.html} 2> {log}"
