# Sessions: one job owns one server and measures the points that need it, one after another.
rule session:
    input:
        model=session_model,
        datasets=session_datasets,
        locust=session_locust,
        script=ancient(script("run_session.py")),
    output:
        "results/sessions/{session}.json",
    log:
        "logs/sessions/{session}.log",
    container:
        session_image
    threads: 1
    resources:
        gpu=CONFIG["resources"]["gpus"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=session_runtime,
    params:
        plan=plan("session"),
    message:
        "Session {wildcards.session}"
    shell:
        "python {input.script} --config $MEMGAP_CONFIG --name {wildcards.session}"
        " --results results --log {log}"
