# Synthetic models: the right shape, a word-level tokenizer, no weights.
localrules:
    synthetic_model,


rule synthetic_model:
    input:
        spec="results/plans/model/{model}.json",
        script=ancient(script("write_model.py")),
    output:
        multiext("results/models/{model}/", "config.json", "tokenizer.json", "tokenizer_config.json"),
    log:
        "logs/models/{model}.log",
    message:
        "Synthetic model {wildcards.model}"
    container: None
    shell:
        "python {input.script} --spec {input.spec} --out results/models/{wildcards.model} 2> {log}"
