"""Set-up: how demo.py gets from a bare Python to the running example.

`launcher` reads the arguments and starts the program, `environment` makes `.venv`, `qt_libraries`
looks for the system libraries that Qt needs, `desktop_entry` writes one to double-click on Linux,
`pack` makes forwarder.pyz. Standard library only: it runs before anything is installed.
"""
