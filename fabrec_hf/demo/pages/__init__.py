"""The pages in a browser; what they show is worked out in the package above."""
