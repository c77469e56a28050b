# Tunings: a race is one job, which takes the winner of the tier before from its outcome.
use rule session as tuning_race with:
    input:
        ASK.race_before,
        script=ancient(script("run_tuning.py")),
        code=RESTORED_BY,
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
        plan=ASK.race_key,
    message:
        "Race {wildcards.tier} of {wildcards.model} ({wildcards.tuning})"
