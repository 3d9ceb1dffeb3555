"""`image-score studio`: a page for sellers, and one for those who run the pipeline.

app        wires the two, and runs them
sellers    drop photos in: score, reasons, where, tips with before and after, order
operators  the running pipeline, live
live       reads what the operators' page shows
drift      score distributions, compared with last week's
sessions   the photos of each visitor, in memory, until the session ends
scoring    what is found out about a photo
heat       where in a photo the score is lost
guard      headers, tokens and limits against hostile visitors
words      the texts, in the visitor's language
"""
