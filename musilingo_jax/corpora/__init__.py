"""Songs with questions and answers: one file per corpus."""
