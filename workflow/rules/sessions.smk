# Sessions: one job owns one server and measures the points that need it, one after another.
from memgap.sweep.study import model_folder_name


def session_records(wildcards):
    return [STUDY.points[key].record for key in STUDY.sessions[wildcards.session]]


def session_model(wildcards):
    folder = model_folder_name(session_records(wildcards)[0]["model"])
    return ancient(f"results/models/{folder}/config.json") if folder else []


def session_datasets(wildcards):
    keys = {record["dataset"]["key"] for record in session_records(wildcards)}
    return [ancient(f"results/datasets/{key}.npz") for key in sorted(keys)]


rule session:
    input:
        plan="results/plans/session/{session}.json",
        model=session_model,
        datasets=session_datasets,
        script=ancient(script("run_session.py")),
    output:
        "results/sessions/{session}.json",
    log:
        "logs/sessions/{session}.log",
    threads: 1
    resources:
        gpu=CONFIG["resources"]["gpus"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=lambda wildcards, attempt: attempt * CONFIG["resources"]["runtime_min"],
    message:
        "Session {wildcards.session}"
    shell:
        "python {input.script} --plan {input.plan} --results results --log {log}"
