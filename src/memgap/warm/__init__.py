"""A warm process for the light jobs of one Snakemake run: it imports pandas and Matplotlib once and forks for each job.

Most of a figure's time is Python importing packages. The first such job starts a server (`server.py`). Each job
connects to it (`client.py`) and hands over its working directory, environment, arguments and standard streams; a fork
runs the job (`job.py`), and its exit status is the job's own.

The server belongs to one driver (`driver.py`), one interpreter, one environment and one state of this package's files,
and ends with its driver or when it has been idle. Wherever anything is unusual (another host, a container, another
system than Linux, threads that a fork would lose), the job runs in its own process, as it does with `MEMGAP_WARM=0`.
"""
