"""`python -m kong_ai_proxy`: the same as the command `kong-ai-proxy`."""

import sys

from kong_ai_proxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
