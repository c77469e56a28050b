# The batching configuration advisor: B_opt, the memory it needs, ready-to-use server flags.
ADVISOR_MODULES = ["bca", "flags", "memory", "report", "stability"]


rule advise:
    input:
        table=advised_table,
        script=script("advise.py"),
        code=[package_path(f"advisor/{name}.py") for name in ADVISOR_MODULES],
    output:
        yaml=advice_in_report("yaml"),
        html=advice_in_report("html"),
    log:
        "logs/advisor/{model}.log",
    wildcard_constraints:
        model=MODEL_NAMES,
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("advisor"),
    message:
        "Advice for {wildcards.model}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name settings --table {input.table:q}"
        " --model {wildcards.model:q} --out {output.yaml:q} --html {output.html:q} 2> {log:q}"


# The advised server, started and measured: a session of its own, known only once there is an advice. With recorded data
# nothing is started: the recorded run is taken where there is one.
rule verify:
    input:
        advice="results/advisor/{model}.yaml",
        table=advised_table,
        script=script("verify_advice.py"),
    output:
        yaml=verification_in_report("yaml"),
        html=verification_in_report("html"),
    log:
        "logs/verify/{model}.log",
    wildcard_constraints:
        model=MODEL_NAMES,
    container:
        verified_image
    threads: 1
    resources:
        server=1,
        gpu=gpus_of_verification,
        nodes=CONFIG["resources"]["nodes"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=runtime_of_session,
    params:
        plan=plan("verification"),
    message:
        "Verification of the advice for {wildcards.model}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.model:q} --advice {input.advice:q}"
        " --results results --out {output.yaml:q} --html {output.html:q} --log {log:q}"
