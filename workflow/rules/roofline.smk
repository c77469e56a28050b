# The roofline of models on GPUs without running them, and how far measured steps are from it.
rule predict:
    input:
        script=script("predict_roofline.py"),
        code=[package_path("roofline/predictions.py"), *roofline_code()],
    output:
        csv="results/tables/{prediction}.predictions.csv",
    log:
        "logs/predictions/{prediction}.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("predictions"),
    message:
        "The roofline's predictions {wildcards.prediction}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.prediction:q} --csv {output.csv:q} 2> {log:q}"


rule roofline_error:
    input:
        tables=roofline_sweeps,
        studies=roofline_studies,
        script=script("roofline_error.py"),
        code=[package_path("tables/roofline_error.py"), *roofline_code()],
    output:
        csv=study_table_in_report("roofline_error", "csv"),
        summary="results/tables/roofline_error.summary.csv",
        html=study_table_in_report("roofline_error", "html"),
    log:
        "logs/tables/roofline_error.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("roofline"),
    message:
        "The roofline's error over measured points"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --table {input.tables:q} --offline {input.studies:q}"
        " --csv {output.csv:q} --summary {output.summary:q} --html {output.html:q} 2> {log:q}"
