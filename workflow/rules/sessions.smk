# Sessions: one job owns one server and measures the points that need it, one after another. All jobs that measure ask
# for the same resources; their wildcards tell what they start.
rule session:
    input:
        ASK.session_inputs,
        script=ancient(script("run_session.py")),
    output:
        "results/sessions/{session}.json",
    log:
        "logs/sessions/{session}.log",
    wildcard_constraints:
        session=targets.NOTHING if CONFIG["recorded"] else ".+",
    container:
        ASK.image
    threads: 1
    resources:
        server=1,
        gpu=ASK.gpus,
        nodes=CONFIG["resources"]["nodes"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=ASK.runtime_min,
    params:
        name="{session}",
        options=[],
        plan=ASK.plan("session"),
        variables=inherited_text(os.environ),
    message:
        "Session {wildcards.session}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {params.name:q} {params.options:q}"
        " --results results --log {log:q}"


# Recorded data need no server, so one job takes all of them: most of its time is Python's start.
if CONFIG["recorded"] and STUDY.sessions:

    rule recorded_sessions:
        input:
            script=ancient(script("restore_sessions.py")),
            code=RESTORED_BY,
        output:
            expand("results/sessions/{session}.json", session=STUDY.sessions),
        log:
            "logs/sessions/recorded.log",
        localrule: True
        conda:
            "../../envs/workflow.yaml"
        params:
            plan=targets.sessions_key(STUDY),
        message:
            "All sessions from the recorded data"
        shell:
            "python {input.script:q} --config $MEMGAP_CONFIG --results results --log {log:q}"
