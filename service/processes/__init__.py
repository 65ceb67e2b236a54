"""Starting, watching and stopping a server: one process, or several that exchange messages.

May import every other room of `service` except `cli`.
"""
