"""A program for torchrun that is killed in its first life. Usage: restarted.py FOLDER STEP, with 0 for no kill."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from checkpoint_cases import train

if __name__ == "__main__":
    is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    train(sys.argv[1], int(sys.argv[2]) if is_first else None)
