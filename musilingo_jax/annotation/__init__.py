"""What can be measured in a song, with where it comes from.

    song        all fields of a song                    `FIELDS`
      spectra     what the estimators look at
      beats       tempo and beats
      bars        metre and downbeats
      keys        the key
      chords      chords
      loudness    how loud it is
      sections    where it becomes another
      tags        what taggers say                      `models/taggers`
    madmom      other estimators of the same fields, not for commercial use
    annotate    clips → rows, as a job

The estimators are pure functions of a waveform. How often each of them is wrong on
music whose answers are known: `recipes/annotation_errors.py`.
"""
