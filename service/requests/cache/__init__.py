"""The memory of pictures seen: vectors by the bytes that were sent and by all that shapes them, in this process and in
a store that replicas share."""
