# Sessions: one job owns one server and measures the points that need it, one after another. All jobs that measure ask
# for the same resources; their wildcards tell what they start.
@told
def image(wildcards):
    return jobs.image_of(STUDY, dict(wildcards.items()))


@told
def gpus(wildcards):
    return jobs.gpus_of(STUDY, dict(wildcards.items()))


@told
def session_inputs(wildcards):
    inputs = jobs.session_inputs(STUDY, wildcards.session, LOCUST_NOTE)
    return [ancient(path) for path in inputs]


rule session:
    input:
        session_inputs,
        script=ancient(script("run_session.py")),
    output:
        "results/sessions/{session}.json",
    log:
        "logs/sessions/{session}.log",
    wildcard_constraints:
        session=targets.NOTHING if CONFIG["recorded"] else ".+",
    container:
        image
    threads: 1
    resources:
        server=1,
        gpu=gpus,
        nodes=CONFIG["resources"]["nodes"],
        mem_mb=CONFIG["resources"]["mem_mb"],
        cpus_per_task=CONFIG["resources"]["cpus"],
        runtime=lambda _, attempt: session_runtime_min(CONFIG["resources"], attempt),
    params:
        name="{session}",
        options=[],
        plan=plan("session"),
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
