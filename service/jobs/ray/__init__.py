"""A job on a cluster of Ray: Ray Data moves the pictures, and what the one-host job is made of does the work.

    source ─ driver ─► read ─► decode ─► embed ─► driver ─► ledger, file
             (names)   (tasks) (tasks)   (actors) (in order)

Nothing else in `service` imports Ray. Imports its neighbours in `jobs`. The driver writes, so files, order and
ledger are those of one host.
"""
