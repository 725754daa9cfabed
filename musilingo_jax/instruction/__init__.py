"""What is known of a clip → questions and answers to train on.

subjects        what is known of a clip: captions, facts, tags
sources       … read from songs files, captions, annotations
pairs           a question and its answer; the row of an item
templates     by rules: right by construction
instructions  what a language model is asked for
decoder     … one of ours, without music
endpoint    … one behind an address; `ledger` keeps what it said
replies       a model's text → pairs
filters       pairs that are refused, and why
truth       … because they contradict what is known
making          items → rows, as a job
formats         rows → files that corpora are read from
summary         rows → counts, a report, a picture
"""
