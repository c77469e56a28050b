# Tables I to IV, and the paper's claims against what was measured.
rule tab01:
    input:
        unpack(
            offline_tables("tables", "tab01", "offline", "classes", "counters", "gpu")
        ),
        script=script("study_table.py"),
        code=package_path("tables/tab01.py"),
    output:
        csv=study_table_in_report("tab01", "csv"),
        html=study_table_in_report("tab01", "html"),
        md="results/tables/tab01.md",
        tex="results/tables/tab01.tex",
    log:
        "logs/tables/tab01.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Table I: prefill and decode at MAX"
    shell:
        "python {input.script:q} tab01 --offline {input.offline:q} --classes {input.classes:q} --counters {input.counters:q} --gpu {input.gpu:q}"
        " --csv {output.csv:q} --html {output.html:q} --md {output.md:q} --tex {output.tex:q} 2> {log:q}"


rule tab02:
    input:
        unpack(offline_tables("tables", "tab02", "offline", "counters")),
        script=script("study_table.py"),
        code=package_path("tables/tab02.py"),
    output:
        csv=study_table_in_report("tab02", "csv"),
        html=study_table_in_report("tab02", "html"),
        md="results/tables/tab02.md",
        tex="results/tables/tab02.tex",
    log:
        "logs/tables/tab02.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Table II: performance and traffic of attention kernels"
    shell:
        "python {input.script:q} tab02 --offline {input.offline:q} --counters {input.counters:q}"
        " --csv {output.csv:q} --html {output.html:q} --md {output.md:q} --tex {output.tex:q} 2> {log:q}"


rule tab03:
    input:
        unpack(offline_tables("tables", "tab03", "offline", "counters")),
        script=script("study_table.py"),
        code=package_path("tables/tab03.py"),
    output:
        csv=study_table_in_report("tab03", "csv"),
        html=study_table_in_report("tab03", "html"),
        md="results/tables/tab03.md",
        tex="results/tables/tab03.tex",
    log:
        "logs/tables/tab03.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Table III: cache hit rates of attention kernels"
    shell:
        "python {input.script:q} tab03 --offline {input.offline:q} --counters {input.counters:q}"
        " --csv {output.csv:q} --html {output.html:q} --md {output.md:q} --tex {output.tex:q} 2> {log:q}"


rule tab04:
    input:
        unpack(study_tables("tab04")),
        script=script("study_table.py"),
        code=package_path("tables/tab04.py"),
    output:
        csv=study_table_in_report("tab04", "csv"),
        html=study_table_in_report("tab04", "html"),
        md="results/tables/tab04.md",
        tex="results/tables/tab04.tex",
    log:
        "logs/tables/tab04.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Table IV: replication on one GPU"
    shell:
        "python {input.script:q} tab04 --replication {input.replication:q} --online {input.online:q}"
        " --csv {output.csv:q} --html {output.html:q} --md {output.md:q} --tex {output.tex:q} 2> {log:q}"


rule claims:
    input:
        unpack(study_tables("claims")),
        advice=study_advice("claims"),
        study=list(claims_study_tables().values()),
        verified=lambda wildcards: study_verifications("claims"),
        script=script("study_table.py"),
        code=package_path("tables/claims.py"),
        offline_code=package_path("tables/offline_claims.py"),
    output:
        csv=study_table_in_report("claims", "csv"),
        html=study_table_in_report("claims", "html"),
    log:
        "logs/tables/claims.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        study=options_of(claims_study_tables()),
    message:
        "What the paper claims against what was measured"
    shell:
        "python {input.script:q} claims --replication {input.replication:q} --online {input.online:q}"
        " --advice {input.advice:q} --verified {input.verified:q} {params.study:q}"
        " --csv {output.csv:q} --html {output.html:q} 2> {log:q}"
