# The batching configuration advisor: B_opt, the memory it needs, ready-to-use server flags.
localrules:
    advise,


def advised_table(wildcards):
    sweep = next(name for name in figure_sweeps() if wildcards.model in STUDY.models_of(name))
    return f"results/tables/{sweep}.parquet"


rule advise:
    input:
        table=advised_table,
        settings="results/plans/advisor/settings.json",
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
    message:
        "Advice for {wildcards.model}"
    container: None
    shell:
        "python {input.script} --table {input.table} --model {wildcards.model}"
        " --settings {input.settings} --out {output} 2> {log}"
