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
        "python {input.script:q} --figure fig02 --table {input.table:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


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
        "python {input.script:q} --figure fig03 --table {input.table:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


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
        "python {input.script:q} --figure fig10 --table {input.table:q} --advice {input.advice:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


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
        "python {input.script:q} --figure fig11 --table {input.table:q} --advice {input.advice:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


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
        "python {input.script:q} --figure fig12 --table {input.table:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


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
        "python {input.script:q} --figure fig13 --table {input.table:q} --kernels {input.kernels:q} {params.paper:q}"
        " --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig01:
    input:
        unpack(offline_tables("figures", "fig01", "offline", "counters")),
        script=script("plot_figure.py"),
        code=figure_module("fig01"),
    output:
        pdf=in_report("fig01", "pdf"),
        png=in_report("fig01", "png"),
        csv=in_report("fig01", "csv"),
    log:
        "logs/figures/fig01.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 1: roofline of attention and matrix products"
    shell:
        "python {input.script:q} --figure fig01 --offline {input.offline:q} --counters {input.counters:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig04:
    input:
        unpack(offline_tables("figures", "fig04", "offline")),
        script=script("plot_figure.py"),
        code=figure_module("fig04"),
    output:
        pdf=in_report("fig04", "pdf"),
        png=in_report("fig04", "png"),
        csv=in_report("fig04", "csv"),
    log:
        "logs/figures/fig04.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 4: prefill and decode time over the batch"
    shell:
        "python {input.script:q} --figure fig04 --offline {input.offline:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig05:
    input:
        unpack(
            offline_tables(
                "figures", "fig05", "offline", "classes", "kernels", "counters", "gpu"
            )
        ),
        script=script("plot_figure.py"),
        code=figure_module("fig05"),
    output:
        pdf=in_report("fig05", "pdf"),
        png=in_report("fig05", "png"),
        csv=in_report("fig05", "csv"),
    log:
        "logs/figures/fig05.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 5: DRAM traffic and warps in flight over the batch"
    shell:
        "python {input.script:q} --figure fig05 --offline {input.offline:q} --classes {input.classes:q} --timeline {input.kernels:q}"
        " --counters {input.counters:q} --gpu {input.gpu:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig06:
    input:
        unpack(offline_tables("figures", "fig06", "offline", "classes")),
        script=script("plot_figure.py"),
        code=figure_module("fig06"),
    output:
        pdf=in_report("fig06", "pdf"),
        png=in_report("fig06", "png"),
        csv=in_report("fig06", "csv"),
    log:
        "logs/figures/fig06.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 6: a decode step by kernel class"
    shell:
        "python {input.script:q} --figure fig06 --offline {input.offline:q} --classes {input.classes:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig07:
    input:
        unpack(offline_tables("figures", "fig07", "offline", "kernels", "counters")),
        script=script("plot_figure.py"),
        code=figure_module("fig07"),
    output:
        pdf=in_report("fig07", "pdf"),
        png=in_report("fig07", "png"),
        csv=in_report("fig07", "csv"),
    log:
        "logs/figures/fig07.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 7: kernels inside one decode step"
    shell:
        "python {input.script:q} --figure fig07 --offline {input.offline:q} --timeline {input.kernels:q}"
        " --counters {input.counters:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig08:
    input:
        unpack(offline_tables("figures", "fig08", "offline", "counters")),
        script=script("plot_figure.py"),
        code=figure_module("fig08"),
    output:
        pdf=in_report("fig08", "pdf"),
        png=in_report("fig08", "png"),
        csv=in_report("fig08", "csv"),
    log:
        "logs/figures/fig08.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 8: stalls of attention kernels"
    shell:
        "python {input.script:q} --figure fig08 --offline {input.offline:q} --counters {input.counters:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule fig09:
    input:
        unpack(offline_tables("figures", "fig09", "offline", "counters")),
        script=script("plot_figure.py"),
        code=figure_module("fig09"),
    output:
        pdf=in_report("fig09", "pdf"),
        png=in_report("fig09", "png"),
        csv=in_report("fig09", "csv"),
    log:
        "logs/figures/fig09.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
    message:
        "Figure 9: stalls over the length of prompt and output"
    shell:
        "python {input.script:q} --figure fig09 --offline {input.offline:q} --counters {input.counters:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule timeshare:
    input:
        unpack(offline_tables("figures", "timeshare", "offline", "classes")),
        online=compared_sweep("timeshare"),
        script=script("plot_figure.py"),
        code=figure_module("timeshare"),
    output:
        pdf=in_report("timeshare", "pdf"),
        png=in_report("timeshare", "png"),
        csv=in_report("timeshare", "csv"),
    log:
        "logs/figures/timeshare.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        paper=paper_reference_option(),
        online=options_of({"table": one for one in compared_sweep("timeshare")}),
    message:
        "Where the time of a decode step goes"
    shell:
        "python {input.script:q} --figure timeshare --offline {input.offline:q} --classes {input.classes:q} {params.online:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule roofline:
    input:
        table=figure_table("roofline"),
        predictions=figure_predictions("roofline"),
        script=script("plot_figure.py"),
        code=[
            figure_module("roofline"),
            package_path("tables/roofline_error.py"),
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
        "python {input.script:q} --figure roofline --table {input.table:q} --predictions {input.predictions:q}"
        " --config $MEMGAP_CONFIG --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"
