"""Clips of a feature cache that are like a song, or that texts describe.

likeness    features → how alike two clips are
bm25        texts → how well each of them fits some words
cached      the clips of a cache: their vectors, and the texts that belong to them
"""
