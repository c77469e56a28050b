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
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("advisor"),
    message:
        "Advice for {wildcards.model}"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name settings --table {input.table}"
        " --model {wildcards.model} --out {output.yaml} --html {output.html} 2> {log}"
