# Synthetic models: the right shape, a word-level tokenizer, no weights.
rule synthetic_model:
    input:
        script=ancient(script("write_model.py")),
    output:
        multiext(
            "results/models/{model}/",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
    log:
        "logs/models/{model}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("model"),
    message:
        "Synthetic model {wildcards.model}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.model:q}"
        " --out results/models/{wildcards.model:q} 2> {log:q}"
