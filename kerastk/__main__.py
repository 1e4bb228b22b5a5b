"""`python -m kerastk`: the command `kerastk`."""

import sys

from kerastk.cli import main

if __name__ == "__main__":
    # What a run's environment.json calls it.
    sys.argv[0] = "kerastk"
    main()
