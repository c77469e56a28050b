# Engines against one another: static batches of Hugging Face generate and vLLM's continuous batching.
COMPARISON_FIGURES = ("static_batching", "memory_over_time", "kv_waste")


rule comparison_tables:
    input:
        sessions=sweep_sessions,
        script=script("comparison_tables.py"),
        code=[
            package_path(f"kinds/static/{name}.py")
            for name in ("engines", "kv", "layouts", "memory")
        ],
    output:
        multiext("results/tables/{sweep}", ".engines.csv", ".kv.csv", ".memory.csv"),
    log:
        "logs/tables/{sweep}.comparison.log",
    conda:
        "../../envs/workflow.yaml"
    params:
        plan=plan("group"),
    message:
        "Tables of the comparison {wildcards.sweep}"
    shell:
        "python {input.script:q} --config $MEMGAP_CONFIG --name {wildcards.sweep:q}"
        " --points results/points --out results/tables/{wildcards.sweep:q} 2> {log:q}"


rule static_batching:
    input:
        unpack(compared("static_batching")),
        script=script("plot_figure.py"),
        code=[
            figure_module("static_batching"),
            package_path("figures/comparison_looks.py"),
        ],
    output:
        pdf=in_report("static_batching", "pdf"),
        png=in_report("static_batching", "png"),
        csv=in_report("static_batching", "csv"),
    log:
        "logs/figures/static_batching.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Static against continuous batching"
    shell:
        "python {input.script:q} --figure static_batching --engines {input.engines:q} --kv {input.kv:q}"
        " --memory {input.memory:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule memory_over_time:
    input:
        unpack(compared("memory_over_time")),
        script=script("plot_figure.py"),
        code=[
            figure_module("memory_over_time"),
            package_path("figures/comparison_looks.py"),
        ],
    output:
        pdf=in_report("memory_over_time", "pdf"),
        png=in_report("memory_over_time", "png"),
        csv=in_report("memory_over_time", "csv"),
    log:
        "logs/figures/memory_over_time.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "Memory over time of each engine"
    shell:
        "python {input.script:q} --figure memory_over_time --engines {input.engines:q} --kv {input.kv:q}"
        " --memory {input.memory:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule kv_waste:
    input:
        unpack(compared("kv_waste")),
        script=script("plot_figure.py"),
        code=[
            figure_module("kv_waste"),
            package_path("figures/comparison_looks.py"),
        ],
    output:
        pdf=in_report("kv_waste", "pdf"),
        png=in_report("kv_waste", "png"),
        csv=in_report("kv_waste", "csv"),
    log:
        "logs/figures/kv_waste.log",
    conda:
        "../../envs/workflow.yaml"
    message:
        "KV cache held and wasted"
    shell:
        "python {input.script:q} --figure kv_waste --engines {input.engines:q} --kv {input.kv:q}"
        " --memory {input.memory:q} --pdf {output.pdf:q} --png {output.png:q} --csv {output.csv:q} 2> {log:q}"


rule hf_vs_vllm:
    input:
        [
            f"figures/{name}.{kind}"
            for name in COMPARISON_FIGURES
            for kind in ("pdf", "png", "csv")
        ],
