"""What stands at the TLS edge: the agent that keeps HAProxy as the functions say, and the shim before Envoy's callout.

It imports nothing of the functions: an edge is another machine, and edgeFeed and verifyClient are all it knows of them.
"""
