# The fleet planner: which models at which caps on which GPUs, from the sweeps that measured them.
def fleet_tables(wildcards):
    if wildcards.fleet not in CONFIG["fleets"]:
        raise WorkflowError(
            f"memgap: config: fleets.{wildcards.fleet} is missing; describe the fleet there."
        )
    return [
        f"results/tables/{sweep}.parquet"
        for sweep in CONFIG["fleets"][wildcards.fleet]["sweeps"]
    ]


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
        "python {input.script} --config $MEMGAP_CONFIG --name {wildcards.fleet} --table {input.tables}"
        " --out {output.yaml} --csv {output.csv} 2> {log}"
