"""Others' requests and answers, a module a dialect: a body becomes an `EmbedRequest`, and the results become an answer.

Pure: no dialect waits, reads a socket or knows a stage. May import `service.requests`, `service.limits` and
`service.errors`.
"""
