"""A router in front of several servers: one address, each request sent to a member by a policy, replies passed on.

`python -m memgap.router --port PORT --policy POLICY --member NAME[:ROLE]=URL ...` runs until a signal ends it. It adds
as little as it can: nothing of a reply is read but where it ends. `policies` has what can be asked for.
"""
