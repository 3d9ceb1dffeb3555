"""Online experiments: who sees what (`schemas.experiment`), and what it did.

logs      reads what was logged, and gathers it by user
stats     differences between two arms, with their uncertainty
analysis  every metric of an experiment, and the decision
report    the page that a product manager reads
"""
