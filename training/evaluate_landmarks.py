"""Score a landmark checkpoint on annotated faces; the same as `fabrec evaluate`.

Example:
    python training/evaluate_landmarks.py --model 3fabrec-300w --data data/300w --split test --json
"""

import sys

from fabrec_hf.cli import main


if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
