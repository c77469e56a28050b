# Tables from what single points keep: what kept its SLO, every second of every point, kernel timelines.
rule goodput:
    input:
        sessions=sweep_sessions,
        script=script("request_table.py"),
    output:
        report(
            "results/tables/{sweep}.goodput.csv",
            caption="../report/goodput.rst",
            category="Tables",
            labels={"sweep": "{sweep}", "file": "goodput"},
        ),
    log:
        "logs/goodput/{sweep}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("goodput"),
    message:
        "Goodput of the sweep {wildcards.sweep}"
    shell:
        "python {input.script:q} goodput --config $MEMGAP_CONFIG --name {wildcards.sweep:q} --points results/points"
        " --csv {output:q} 2> {log:q}"


rule series:
    input:
        sessions=sweep_sessions,
        script=script("request_table.py"),
    output:
        "results/tables/{sweep}.series.csv",
    log:
        "logs/series/{sweep}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("group"),
    message:
        "Every second of the sweep {wildcards.sweep}"
    shell:
        "python {input.script:q} series --config $MEMGAP_CONFIG --name {wildcards.sweep:q} --points results/points"
        " --csv {output:q} 2> {log:q}"


rule kernels:
    input:
        sessions=sweep_sessions,
        script=script("request_table.py"),
    output:
        "results/tables/{sweep}.kernels.csv",
    log:
        "logs/kernels/{sweep}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("group"),
    message:
        "Kernel timelines of the sweep {wildcards.sweep}"
    shell:
        "python {input.script:q} kernels --config $MEMGAP_CONFIG --name {wildcards.sweep:q} --points results/points"
        " --csv {output:q} 2> {log:q}"
