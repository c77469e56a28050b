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
        plan=plan("group"),
    message:
        "Table of the sweep {wildcards.sweep}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.sweep:q} --points results/points"
        " --parquet {output.parquet:q} --csv {output.csv:q} --html {output.html:q} 2> {log:q}"
