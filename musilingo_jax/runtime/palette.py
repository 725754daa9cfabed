"""The colours of every picture and every page, so that all of them match."""

INK = "#1f2933"  # text, axes and single measurements
MUTED = "#52606d"  # captions
RULE = "#d9dee3"  # grids and the rules of tables
BLUE = "#1d6fa5"  # what is measured on clips that were not trained on
ORANGE = "#c2410c"  # a moving mean
GREYS = ("#7c8a97", "#9aa6b1", "#b9c2ca", "#d3d9de", "#e6eaed")  # the controls
