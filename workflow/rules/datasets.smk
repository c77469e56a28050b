# Workloads, tokenised once and kept by content.
rule dataset:
    input:
        script=ancient(script("make_dataset.py")),
    output:
        prompts="results/datasets/{dataset}.npz",
        description="results/datasets/{dataset}.json",
    log:
        "logs/datasets/{dataset}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("dataset"),
    message:
        "Dataset {wildcards.dataset}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.dataset:q}"
        " --out {output.prompts:q} 2> {log:q}"
