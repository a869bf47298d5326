"""How demo.py gets from a bare Python to the running example.

`command` reads the arguments and starts the right program, `environment` makes `.venv`, `libraries`
sees to the system libraries that Qt needs, `desktop` writes the entry to double-click on Linux.
Standard library only, and nothing of the other packages: it runs before they can.
"""
