"""A history checker: random clients of several replicas, faults, and what must hold of everything that they saw.

The checker is outside the code that it checks: it sees what clients were answered, what subscribers received and the
table of events, and nothing else.
"""
