# Workloads, tokenised once and kept by content.
localrules:
    dataset,


rule dataset:
    input:
        spec="results/plans/dataset/{dataset}.json",
        script=ancient(script("make_dataset.py")),
    output:
        "results/datasets/{dataset}.npz",
        "results/datasets/{dataset}.json",
    log:
        "logs/datasets/{dataset}.log",
    message:
        "Dataset {wildcards.dataset}"
    container: None
    shell:
        "python {input.script} --spec {input.spec} --out {output[0]} 2> {log}"
