# The fleet planner: which models at which caps on which GPUs, from the sweeps that measured them.
rule plan_fleet:
    input:
        tables=fleet_tables,
        script=script("plan_fleet.py"),
    output:
        yaml="results/planner/{fleet}.yaml",
        csv="results/planner/{fleet}.csv",
    log:
        "logs/planner/{fleet}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("fleet"),
    message:
        "Plan of the fleet {wildcards.fleet}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.fleet:q} --table {input.tables:q}"
        " --out {output.yaml:q} --csv {output.csv:q} 2> {log:q}"
