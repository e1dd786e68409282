"""`python -m fabrec_hf.cli`: the command line."""

import sys

from . import main


sys.exit(main())
