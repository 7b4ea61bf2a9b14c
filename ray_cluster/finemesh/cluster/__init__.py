"""The Ray side of the mesh: the cluster agent, which is the only Ray driver, and what it runs on Ray.

    agent        takes commands from JetStream and from SyncCluster, starts a supervisor for each attempt
    ledger       the agent's own record of commands, in SQLite
    head, driver what is asked of Ray: from outside by gRPC, from inside by its library
    supervisor   detached actor, one per attempt: holds the lease, places and watches the worker
    spool        metric points on local disk, written by the worker
    shipper      carries spools to Tracking
    workers      the work itself, one module per kind

May import data, finetune, package, core, chassis and the stubs. Agent and supervisors stay light: only a
worker loads torch, and only for work that needs it.
"""
