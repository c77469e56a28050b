# Every figure, by the path that it goes to below figures/. What a figure reads is declared in its module.
rule figure:
    input:
        ASK.figure("files"),
        script=script("draw.py"),
        code=ASK.figure("code"),
    output:
        pdf=in_report("figures/{figure}.pdf", ASK.figure("category"), figure="{figure}"),
        png=in_report("figures/{figure}.png", ASK.figure("category"), figure="{figure}"),
        csv=in_report("figures/{figure}.csv", ASK.figure("category"), figure="{figure}"),
    log:
        "logs/figures/{figure}.log",
    wildcard_constraints:
        figure=targets.figure_paths(),
    localrule: True
    conda:
        "../../envs/workflow.yaml"
    params:
        name=ASK.figure("name"),
        group=ASK.figure("group_option"),
        reads=ASK.figure("options"),
        paper=ASK.figure("paper_option"),
        plan=ASK.figure("plan"),
        caption=ASK.figure("heading"),
    message:
        "Figure {wildcards.figure}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG {params.group:q} --figure {params.name:q} --read {params.reads:q}"
        " {params.paper:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"
