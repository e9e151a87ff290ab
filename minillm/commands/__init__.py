"""What `minillm ...` can do: one file per subcommand, its options (`add_arguments`) beside what it does (`run`).

A new command is a file here with `add_arguments` and `run`, a row in cli.py's list, and a test. Read options.py first,
which makes options from what they feed; table.py is what `inspect` and `compare` print with.
"""
