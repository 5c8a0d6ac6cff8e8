"""Helpers of the tests: certificates, stores, emulators, servers, the service in process."""
