"""Each thread, task and process of a server is ended in turn, under load: it is replaced, or the server ends, and why
is in the log. What a running server lists is what is ended here."""
