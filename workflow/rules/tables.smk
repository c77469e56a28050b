# Table IV, and the paper's claims against what was measured.
rule tab04:
    input:
        unpack(study_tables("tab04")),
        script=script("study_table.py"),
        code=package_path("tables/tab04.py"),
    output:
        csv=study_table_in_report("tab04", "csv"),
        html=study_table_in_report("tab04", "html"),
    log:
        "logs/tables/tab04.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Table IV: replication on one GPU"
    shell:
        "python {input.script} tab04 --replication {input.replication} --online {input.online}"
        " --csv {output.csv} --html {output.html} 2> {log}"


rule claims:
    input:
        unpack(study_tables("claims")),
        advice=study_advice("claims"),
        verified=lambda wildcards: study_verifications("claims"),
        script=script("study_table.py"),
        code=package_path("tables/claims.py"),
    output:
        csv=study_table_in_report("claims", "csv"),
        html=study_table_in_report("claims", "html"),
    log:
        "logs/tables/claims.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "What the paper claims against what was measured"
    shell:
        "python {input.script} claims --replication {input.replication} --online {input.online}"
        " --advice {input.advice} --verified {input.verified} --csv {output.csv} --html {output.html} 2> {log}"
