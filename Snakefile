# The workflow is in workflow/; this file lets `snakemake` find the profile in profiles/default from any folder.
include: "workflow/Snakefile"


# an included file does not set it
workflow.default_target = "all"
