"""The project root on the path, two threads, no display: what every test needs."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)      # paths in config files are relative to the root
os.environ.setdefault("MPLBACKEND", "Agg")
