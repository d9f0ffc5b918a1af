"""One client request x one target, without sockets: what is asked (`plan`, `asking`, `attempt`),
how a request is changed (`conversion`, `converting`) and its answer (`answering`, `answer`,
`translation`), and what takes several calls (`flowing`).
"""
