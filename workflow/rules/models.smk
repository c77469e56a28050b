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


# Models of the hub, fetched where there is a network, for compute nodes that have none (resources.offline_nodes).
rule hub_model:
    input:
        script=ancient(script("stage_model.py")),
    output:
        "results/hub/{model}.json",
    log:
        "logs/models/hub-{model}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("hub_model"),
    message:
        "Model {wildcards.model} from the hub"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.model:q}"
        " --results results --out {output:q} 2> {log:q}"


# All that jobs read, to be made before nodes without a network, or scripts submitted by hand, need it.
rule staged:
    input:
        expand("results/models/{model}/config.json", model=STUDY.model_folders),
        expand("results/hub/{model}.json", model=STUDY.hub_models),
        expand("results/datasets/{dataset}.npz", dataset=STUDY.datasets),
