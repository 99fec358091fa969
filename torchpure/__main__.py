"""The command line: `python -m torchpure`."""

import sys

from torchpure.cli import main

sys.exit(main())
