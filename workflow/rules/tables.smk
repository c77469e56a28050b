# Every table: a rule a declaration, for all groups of the configuration that have the table.
for spec in table_specs().values():
    of_group = f"{GROUP}." if spec.of else ""

    rule:
        name:
            f"table_{spec.name}"
        input:
            ASK.table(spec, "files"),
            script=script("tabulate.py"),
            code=ASK.table(spec, "code"),
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
            reads=ASK.table(spec, "options"),
            writes=lambda wildcards, output: [
                f"{n}={path}" for n, path in output.items()
            ],
            plan=ASK.table(spec, "plan"),
            caption=ASK.table(spec, "heading"),
        message:
            spec.title + (": {wildcards.group}" if spec.of else "")
        shell:
            "python {input.script:q} --config $MEMGAP_CONFIG --name {params.group:q} --table {params.table:q}"
            " --read {params.reads:q} --write {params.writes:q} 2> {log:q}"
