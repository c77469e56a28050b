# The batching configuration advisor: B_opt, the memory it needs, ready-to-use server flags.
rule advise:
    input:
        table=advised_table,
        script=script("advise.py"),
    output:
        report(
            "results/advisor/{model}.yaml",
            caption="../report/advice.rst",
            category="Advice",
            labels={"model": "{model}"},
        ),
    log:
        "logs/advisor/{model}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("advisor"),
    message:
        "Advice for {wildcards.model}"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name settings --table {input.table}"
        " --model {wildcards.model} --out {output} 2> {log}"
