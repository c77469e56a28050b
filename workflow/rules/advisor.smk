# From measured points to what to run: the batching configuration advisor, its verification, and the fleet planner.
rule advise:
    input:
        table=ASK.advised_table,
        script=script("advise.py"),
        code=code_of("memgap.advisor.report", "memgap.advisor.command"),
    output:
        yaml=advice_in_report("yaml"),
        html=advice_in_report("html"),
    log:
        "logs/advisor/{model}.log",
    wildcard_constraints:
        model=targets.model_names(STUDY),
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=ASK.plan("advisor"),
        caption=lambda wildcards: (
            f"What to run {wildcards.model} with: the batch cap B_opt, the memory that it really needs, and server flags"
            " to paste. The list of candidates says for each cap whether it fits and why not, with the 95 % intervals"
            ' of throughput and latency; "How sure" says how often B_opt stays the same when these are drawn anew.'
        ),
    message:
        "Advice for {wildcards.model}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name settings --table {input.table:q}"
        " --model {wildcards.model:q} --out {output.yaml:q} --html {output.html:q} 2> {log:q}"


# The advised server, started and measured: a session of its own, known only once there is an advice. With recorded data
# nothing is started: the recorded run is taken where there is one.
use rule session as verify with:
    input:
        advice="results/advisor/{model}.yaml",
        table=ASK.advised_table,
        script=script("verify_advice.py"),
        code=RESTORED_BY,
    output:
        yaml=advice_in_report("verified.yaml"),
        html=advice_in_report("verified.html"),
    log:
        "logs/verify/{model}.log",
    wildcard_constraints:
        model=targets.model_names(STUDY),
    params:
        name="{model}",
        options=lambda wildcards, input, output: [
            *("--advice", input.advice, "--out", output.yaml, "--html", output.html),
        ],
        plan=ASK.plan("verification"),
        caption=lambda wildcards: (
            f"What {wildcards.model} did when it ran as advised: predicted against measured, and which of the bounds it"
            " kept. Throughput within 5 % of the prediction counts as predicted."
        ),
    message:
        "Verification of the advice for {wildcards.model}"


# What a server would show under loads that nobody measured, calibrated from a few of the points, checked on the others.
rule twin:
    input:
        tables=ASK.twin_tables,
        script=script("twin.py"),
        code=code_of("memgap.twin.command"),
    output:
        yaml=in_report("results/twin/{model}.yaml", "Twin", model="{model}"),
        csv="results/twin/{model}.csv",
    log:
        "logs/twin/{model}.log",
    wildcard_constraints:
        model=targets.model_names(STUDY),
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        caption=lambda wildcards: (
            f"The twin of {wildcards.model}: the points that it is calibrated from, its coefficients with their"
            " intervals, and how far it is from the points that it was not calibrated from."
        ),
    message:
        "Twin of {wildcards.model}"
    shell:
        "python {input.script:q} --table {input.tables:q} --model {wildcards.model:q}"
        " --out {output.yaml:q} --csv {output.csv:q} 2> {log:q}"


# Which models at which caps on which GPUs, from the sweeps that measured them.
rule plan_fleet:
    input:
        tables=ASK.fleet_tables,
        script=script("plan_fleet.py"),
        code=code_of("memgap.planner.__main__"),
    output:
        yaml="results/planner/{fleet}.yaml",
        csv="results/planner/{fleet}.csv",
    log:
        "logs/planner/{fleet}.log",
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=ASK.plan("fleet"),
    message:
        "Plan of the fleet {wildcards.fleet}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.fleet:q} --table {input.tables:q}"
        " --out {output.yaml:q} --csv {output.csv:q} 2> {log:q}"
