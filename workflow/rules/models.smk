# What measurements start from: synthetic models (the right shape, a word-level tokenizer, no weights), models of the hub,
# tokenised workloads, and Locust's environment.
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
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=ASK.plan("model"),
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
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=ASK.plan("hub_model"),
    message:
        "Model {wildcards.model} from the hub"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.model:q}"
        " --results results --out {output:q} 2> {log:q}"


# Workloads, tokenised once and kept by content.
rule dataset:
    input:
        script=ancient(script("make_dataset.py")),
    output:
        prompts="results/datasets/{dataset}.npz",
        description="results/datasets/{dataset}.json",
    log:
        "logs/datasets/{dataset}.log",
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=ASK.plan("dataset"),
    message:
        "Dataset {wildcards.dataset}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.dataset:q}"
        " --out {output.prompts:q} 2> {log:q}"


rule locust_environment:
    input:
        script=ancient(script("install_locust.py")),
    output:
        LOCUST_NOTE,
    log:
        "logs/locust.log",
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        lock=LOCUST_LOCK,
    message:
        "Locust, into an environment of its own"
    shell:
        "python {input.script:q} --folder .venv-locust --lock {params.lock:q} > {log:q} 2>&1"


# All that jobs read, to be made before nodes without a network, or scripts submitted by hand, need it.
rule staged:
    input:
        expand("results/models/{model}/config.json", model=STUDY.model_folders),
        expand("results/hub/{model}.json", model=STUDY.hub_models),
        expand("results/datasets/{dataset}.npz", dataset=STUDY.datasets),
