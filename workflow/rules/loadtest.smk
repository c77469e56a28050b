# Load tests with Locust: its environment, the tables of each load test, and one figure over time.
rule loadtest:
    input:
        loadtest_files,


rule locust_environment:
    input:
        script=ancient(script("install_locust.py")),
    output:
        LOCUST_NOTE,
    log:
        "logs/locust.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        lock=LOCUST_LOCK,
    message:
        "Locust, into an environment of its own"
    shell:
        "python {input.script:q} --folder .venv-locust --lock {params.lock:q} > {log:q} 2>&1"


rule loadtest_tables:
    input:
        sessions=loadtest_sessions,
        script=script("loadtest_tables.py"),
        code=[
            package_path(f"kinds/locust/{name}.py")
            for name in ("comparison", "locust_csv", "page", "tables")
        ],
    output:
        points="results/tables/{loadtest}.loadtest.csv",
        timeline="results/tables/{loadtest}.timeline.csv",
        comparison=loadtest_in_report("results/tables/{loadtest}.comparison.csv"),
        html=loadtest_in_report("results/tables/{loadtest}.comparison.html"),
        definitions=loadtest_in_report("results/tables/{loadtest}.definitions.csv"),
    log:
        "logs/tables/{loadtest}.loadtest.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("group"),
    message:
        "Tables of the load test {wildcards.loadtest}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.loadtest:q}"
        " --points results/points --out results/tables/{wildcards.loadtest:q} 2> {log:q}"


rule loadtest_figure:
    input:
        points="results/tables/{loadtest}.loadtest.csv",
        timeline="results/tables/{loadtest}.timeline.csv",
        script=script("plot_loadtest.py"),
        code=figure_module("loadtest"),
    output:
        pdf=loadtest_in_report("figures/{loadtest}.loadtest.pdf"),
        png=loadtest_in_report("figures/{loadtest}.loadtest.png"),
        csv=loadtest_in_report("figures/{loadtest}.loadtest.csv"),
    log:
        "logs/figures/{loadtest}.loadtest.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "The load test {wildcards.loadtest} over time"
    shell:
        "python {input.script:q} --points {input.points:q} --timeline {input.timeline:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"
