"""One blueprint per resource. A route parses, calls one service and answers."""
