# Every table: a rule a declaration, for all groups of the configuration that have the table.
def about_table(spec, attribute):
    def of(wildcards):
        made = targets.Made(STUDY, spec, wildcards.get("group", ""))
        return getattr(made, attribute)

    return told(of)


def table_outputs(spec):
    outputs = dict(spec.writes)
    for name, path in outputs.items():
        if name in spec.shown:
            whose = GROUP if spec.of else spec.name
            outputs[name] = in_report(path, spec.category, table=whose)
        elif path.endswith("/"):
            outputs[name] = directory(path)
    return outputs


for spec in table_specs().values():
    of_group = f"{GROUP}." if spec.of else ""

    rule:
        name:
            f"table_{spec.name}"
        input:
            about_table(spec, "files"),
            script=script("tabulate.py"),
            code=about_table(spec, "code"),
        output:
            **table_outputs(spec),
        log:
            f"logs/tables/{of_group}{spec.name}.log",
        wildcard_constraints:
            group=targets.names_of(STUDY, spec.of),
        localrule: True
        conda:
            "../../envs/workflow.yaml"
        params:
            table=spec.name,
            group=lambda wildcards: wildcards.get("group", "settings"),
            reads=about_table(spec, "options"),
            writes=lambda wildcards, output: [
                f"{n}={path}" for n, path in output.items()
            ],
            plan=about_table(spec, "plan"),
            caption=about_table(spec, "heading"),
        message:
            spec.title + (": {wildcards.group}" if spec.of else "")
        shell:
            "python {input.script:q} --config $MEMGAP_CONFIG --name {params.group:q} --table {params.table:q}"
            " --read {params.reads:q} --write {params.writes:q} 2> {log:q}"
