# One rule a figure, named after the paper.
rule fig02:
    input:
        table=figure_table("fig02"),
        script=script("plot_figure.py"),
        code=figure_module("fig02"),
    output:
        pdf=in_report("fig02", "pdf"),
        png=in_report("fig02", "png"),
        csv=in_report("fig02", "csv"),
    log:
        "logs/figures/fig02.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 2: throughput and latency over the average batch"
    shell:
        "python {input.script} --figure fig02 --table {input.table} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig03:
    input:
        table=figure_table("fig03"),
        script=script("plot_figure.py"),
        code=figure_module("fig03"),
    output:
        pdf=in_report("fig03", "pdf"),
        png=in_report("fig03", "png"),
        csv=in_report("fig03", "csv"),
    log:
        "logs/figures/fig03.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 3: throughput over KV-cache usage"
    shell:
        "python {input.script} --figure fig03 --table {input.table} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig10:
    input:
        table=figure_table("fig10"),
        advice=figure_advice("fig10"),
        script=script("plot_figure.py"),
        code=figure_module("fig10"),
    output:
        pdf=in_report("fig10", "pdf"),
        png=in_report("fig10", "png"),
        csv=in_report("fig10", "csv"),
    log:
        "logs/figures/fig10.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 10: the trade-off behind B_opt"
    shell:
        "python {input.script} --figure fig10 --table {input.table} --advice {input.advice} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig11:
    input:
        table=figure_table("fig11"),
        advice=figure_advice("fig11"),
        script=script("plot_figure.py"),
        code=figure_module("fig11"),
    output:
        pdf=in_report("fig11", "pdf"),
        png=in_report("fig11", "png"),
        csv=in_report("fig11", "csv"),
    log:
        "logs/figures/fig11.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 11: GPU memory at B_opt"
    shell:
        "python {input.script} --figure fig11 --table {input.table} --advice {input.advice} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig12:
    input:
        table=figure_table("fig12"),
        script=script("plot_figure.py"),
        code=figure_module("fig12"),
    output:
        pdf=in_report("fig12", "pdf"),
        png=in_report("fig12", "png"),
        csv=in_report("fig12", "csv"),
    log:
        "logs/figures/fig12.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 12: throughput over KV-cache usage by output length"
    shell:
        "python {input.script} --figure fig12 --table {input.table} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig13:
    input:
        table=figure_table("fig13"),
        kernels=figure_kernels("fig13"),
        script=script("plot_figure.py"),
        code=figure_module("fig13"),
    output:
        pdf=in_report("fig13", "pdf"),
        png=in_report("fig13", "png"),
        csv=in_report("fig13", "csv"),
    log:
        "logs/figures/fig13.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 13: kernel timelines of replicas"
    shell:
        "python {input.script} --figure fig13 --table {input.table} --kernels {input.kernels} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule roofline:
    input:
        table=figure_table("roofline"),
        predictions=figure_predictions("roofline"),
        script=script("plot_figure.py"),
        code=[
            figure_module("roofline"),
            package_path("hardware/compare.py"),
            *roofline_code(),
        ],
    output:
        pdf=in_report("roofline", "pdf"),
        png=in_report("roofline", "png"),
        csv=in_report("roofline", "csv"),
    log:
        "logs/figures/roofline.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("roofline"),
    message:
        "The roofline: decode steps predicted and measured"
    shell:
        "python {input.script} --figure roofline --table {input.table} --predictions {input.predictions}"
        " --config $MEMGAP_CONFIG --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"
