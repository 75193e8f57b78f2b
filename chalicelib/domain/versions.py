"""Which version a worker must have for what it is asked to run. Pure.

API and workers are updated one after the other, and the workers of a global service take hours. So
API and workers whose versions are neighbours work together, whichever of them is updated first. What
a worker cannot do yet is not sent to it: its targets fail at the start, and say which version the
worker has.
"""

# What workers of this code announce. Raise it by one when executions may ask something new of workers.
WORKER_VERSION = 1
# What every execution asks: to find its targets in parts. Workers of 0.3.0 announce no version.
NEEDED_VERSION = 1
