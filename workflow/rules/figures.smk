# One rule a figure, named after the paper. Editing a figure's module redraws that figure only.
localrules:
    fig02,
    fig03,
    fig10,


def figure_table(name):
    """The table that a figure is drawn from; asked for only where the figure is wanted."""

    def table(wildcards):
        if name not in CONFIG["figures"]:
            raise WorkflowError(f"memgap: config: figures.{name} is missing; name the sweep it is drawn from.")
        return f"results/tables/{CONFIG['figures'][name]['sweep']}.parquet"

    return table


def figure_advice(name):
    def advice(wildcards):
        if name not in CONFIG["figures"]:
            return []
        models = STUDY.models_of(CONFIG["figures"][name]["sweep"])
        return [f"results/advisor/{model}.yaml" for model in models]

    return advice


def paper_reference_option():
    folder = CONFIG["paper_reference"]
    return ["--paper-reference", folder] if folder else []


def figure_outputs(name):
    def marked(kind):
        return report(
            f"figures/{name}.{kind}",
            caption=f"../report/{name}.rst",
            category="Figures",
            labels={"figure": name, "file": kind},
        )

    return {"pdf": marked("pdf"), "png": marked("png"), "csv": marked("csv")}


rule fig02:
    input:
        table=figure_table("fig02"),
        script=script("plot_figure.py"),
        code=figure_module("fig02"),
    output:
        **figure_outputs("fig02"),
    log:
        "logs/figures/fig02.log",
    params:
        paper=paper_reference_option(),
    message:
        "Figure 2: throughput and latency over the average batch"
    container: None
    shell:
        "python {input.script} --figure fig02 --table {input.table} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"


rule fig03:
    input:
        table=figure_table("fig03"),
        script=script("plot_figure.py"),
        code=figure_module("fig03"),
    output:
        **figure_outputs("fig03"),
    log:
        "logs/figures/fig03.log",
    params:
        paper=paper_reference_option(),
    message:
        "Figure 3: throughput over KV-cache usage"
    container: None
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
        **figure_outputs("fig10"),
    log:
        "logs/figures/fig10.log",
    params:
        paper=paper_reference_option(),
    message:
        "Figure 10: the advisor's trade-off"
    container: None
    shell:
        "python {input.script} --figure fig10 --table {input.table} --advice {input.advice} {params.paper:q}"
        " --pdf {output.pdf} --png {output.png} --csv {output.csv} 2> {log}"
