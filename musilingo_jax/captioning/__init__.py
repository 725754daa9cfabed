"""Captions and fields of a whole library, as a job.

vocabulary      the tags that are allowed, from a file
fields          what a row says of a song, and where each value comes from
  known           values that the songs file gives
  teachers        values of trained taggers
  short_answers   values that a language model answers, or chooses among tags
contradictions  where a caption says something else than the fields
truth           captions → those that agree: kept, asked again, shortened, dropped
asker           the model that is asked
captions        songs → rows, as a job
files           rows → the files that trainers of music generators read
  sidecars        song.txt and song.json
  ace_step        ACE-Step's dataset
  audiocraft      a JSON for each track, and a manifest
  webdataset      tar files
report          what came out: distributions, reasons, a sample
"""
