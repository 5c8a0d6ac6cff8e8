"""Attacks on the running service, by HTTP and MQTT only."""
