"""Consumes its nodes' queues, runs the commands on their engines, writes the results back."""
