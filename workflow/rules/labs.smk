# Labs: one job runs all blocks of one, since their order is part of the method.
use rule session as lab with:
    input:
        script=ancient(script("run_lab.py")),
    output:
        "results/labs/{lab}.json",
    log:
        "logs/labs/{lab}.log",
    wildcard_constraints:
        lab=targets.names_of(STUDY, "lab"),
    params:
        name="{lab}",
        options=[],
        plan=ASK.lab_key,
        variables=inherited_text(os.environ),
    message:
        "Lab {wildcards.lab}"


# Everything of one lab, such as `snakemake lab05`.
for name in STUDY.labs:

    rule:
        name:
            targets.lab_target(name)
        input:
            targets.lab_files(STUDY, name),
