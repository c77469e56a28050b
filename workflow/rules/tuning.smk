# Tunings: a race is one job, which takes the winner of the tier before from its outcome.
use rule session as tuning_race with:
    input:
        told(lambda wildcards: targets.race_before(STUDY, wildcards)),
        script=ancient(script("run_tuning.py")),
    output:
        "results/tuning/{tuning}/{model}/{dataset}/{tier}.json",
    log:
        "logs/tuning/{tuning}/{model}.{dataset}.{tier}.log",
    wildcard_constraints:
        tuning="[^/]+",
        model="[^/]+",
        dataset="[^/]+",
        tier="[^/]+",
    params:
        name="{tuning}",
        options=lambda wildcards: [
            *("--model", wildcards.model, "--dataset", wildcards.dataset),
            *("--tier", wildcards.tier),
        ],
        plan=told(lambda wildcards: targets.race_key(STUDY, wildcards)),
    message:
        "Race {wildcards.tier} of {wildcards.model} ({wildcards.tuning})"
