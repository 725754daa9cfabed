"""The field's benchmarks: published files → questions → answers → scores.

item.py        a question with its sound, its truth, and what its scorer reads
muchomusic.py rulistening.py mmau.py cmi_bench.py captions.py giantsteps.py gtzan.py
instruments.py    a reader, the published rule and the published rows of each
sounds.py      which files the questions are about, and which are missing
asking.py      the job: what the model says of a song, and under the controls
scores.py      answers → a line for each score, with its interval
report.py      lines → report.md and report.json, beside published rows
"""
