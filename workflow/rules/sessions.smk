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
        server=1,
        gpu=gpus_of_session,
        nodes=CONFIG["resources"]["nodes"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=runtime_of_session,
    params:
        plan=session_plan,
    message:
        "Session {wildcards.session}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.session:q}"
        " --results results --log {log:q}"
