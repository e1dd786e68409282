"""Detectors in other forms: for other runtimes, as small differences, and from the authors' files."""
