# Plans: the slice of the configuration that a job needs, as a file that people can read and jobs can be run from by hand.
from memgap.plans import plan_text


localrules:
    plan,


rule plan:
    output:
        "results/plans/{kind}/{name}.json",
    log:
        "logs/plan/{kind}/{name}.log",
    params:
        text=lambda wildcards: plan_text(STUDY, wildcards.kind, wildcards.name),
    message:
        "Plan of the {wildcards.kind} {wildcards.name}"
    container: None
    run:
        Path(output[0]).write_text(params.text)
