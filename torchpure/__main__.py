"""The command line, as `python -m torchpure`."""

import sys

from torchpure.cli import main

sys.exit(main())
