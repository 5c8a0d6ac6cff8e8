"""verifyClient: the native form, and one module for each broker with the broker's own format.

A module is imported when its path is asked (functions/registry.py, DIALECTS). Each has its `DIALECT`, which encodes
verdicts and refusals, and declares its endpoints with `question`.
"""
