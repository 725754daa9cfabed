"""Scores of answers by their words and by their facts, and how sure each score is.

    wording.py    all scores of how an answer is worded, published and honest
      bleu.py rouge.py meteor.py bertscore.py diversity.py words.py wordnet.py
    facts.py      all scores of what an answer says about the music
      naming.py keys.py tempo.py instruments.py choices.py
    intervals.py  95 % intervals of means and of their differences
    flips.py      significance of differences

Nothing here depends on a model of ours. Scores are in [0, 1]; reports show percent.
"""
