"""A job on a cluster of Ray: Ray Data moves the pictures, and what the one-host job is made of does the work.

    source ─ driver ─► read ─► decode ─► embed ─► driver ─► ledger, file
             (names)   (tasks) (tasks)   (actors) (in order)

Only this folder imports Ray. The driver writes, so files, order and ledger are those of one host.
"""
