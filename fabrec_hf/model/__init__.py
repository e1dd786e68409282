"""The networks, their image processors and the pipeline: exactly what is copied into a checkpoint.

The files import each other as `from .name import y` and nothing else of the package. transformers finds the files to
copy by these imports.
"""
