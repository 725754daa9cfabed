"""What an answer is worth, in words and in facts, and how sure we are.

    wording.py    all scores of how an answer is put: published arithmetic, and honest
      bleu.py rouge.py meteor.py bertscore.py diversity.py words.py wordnet.py
    facts.py      all scores of what an answer says of the music
      naming.py keys.py tempo.py instruments.py choices.py
    intervals.py  95 % intervals of means and of their differences
    flips.py      whether a difference is more than chance

Nothing here knows of models. Scores are in [0, 1]; reports say percent.
"""
