# The tables of an offline study: its points, steps, kernel classes, timelines and counters.
rule offline_tables:
    input:
        sessions=offline_sessions,
        script=script("offline_tables.py"),
    output:
        multiext(
            "results/tables/{study}",
            ".offline.csv",
            ".steps.csv",
            ".classes.csv",
            ".kernels.csv",
            ".counters.csv",
            ".gpu.csv",
        ),
    log:
        "logs/tables/{study}.offline.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("group"),
    message:
        "Tables of the offline study {wildcards.study}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.study:q}"
        " --points results/points --out results/tables/{wildcards.study:q} 2> {log:q}"
