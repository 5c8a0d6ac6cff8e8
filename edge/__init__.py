"""The TLS edge: the agent that synchronizes HAProxy with edgeFeed, and the gRPC shim between Envoy and verifyClient.

An edge runs on another machine than the functions. So this package imports nothing of the functions and uses only the
HTTP APIs of edgeFeed and verifyClient.
"""
