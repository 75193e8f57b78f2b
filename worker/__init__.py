"""The worker: takes messages from its nodes' queues, runs the commands, stores the results."""
