"""Labels photos with a multimodal LLM by chain of thought: see `image-score label --help`.

prompt    what is asked: the rubric, the photo, and the shape of the answer
answers   the cache of answers, so that a run can stop and go on at no cost
limits    waits that the server's headers ask for, and the budget
labeller  asks, checks, asks again, sets aside
batch     the same through the endpoint's batch API, at its lower price
report    what was spent, set aside and agreed on
"""
