"""The demonstration in a browser: what it does, and apart from that its pages."""
