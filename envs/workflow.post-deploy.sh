#!/bin/sh
# memgap itself, as Snakemake runs it, into the environment that it has just made from workflow.yaml.
set -eu
site=$("$CONDA_PREFIX/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$MEMGAP_PACKAGE" "$site/memgap"
