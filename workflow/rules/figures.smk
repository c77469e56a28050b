# Every figure, by the path that it goes to below figures/. What a figure reads is declared in its module.
def about_figure(attribute):
    def of(wildcards):
        return getattr(targets.figure_at(STUDY, wildcards.figure), attribute)

    return told(of)


def figure_in_report(form):
    return report(
        f"figures/{{figure}}.{form}",
        caption="../report/entry.rst",
        category=about_figure("category"),
        labels={"figure": "{figure}", "file": form},
    )


rule figure:
    input:
        about_figure("files"),
        script=script("draw.py"),
        code=about_figure("code"),
    output:
        pdf=figure_in_report("pdf"),
        png=figure_in_report("png"),
        csv=figure_in_report("csv"),
    log:
        "logs/figures/{figure}.log",
    wildcard_constraints:
        figure=targets.figure_paths(),
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        name=about_figure("name"),
        reads=about_figure("options"),
        paper=about_figure("paper_option"),
        plan=about_figure("plan"),
        caption=about_figure("heading"),
    message:
        "Figure {wildcards.figure}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --figure {params.name:q} --read {params.reads:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"
