"""Search: the score where buyers look for things.

index    keeps the score of each document in OpenSearch or Elasticsearch up to date
queries  ready-made queries that rank with it
rerank   puts results that are fetched already in a better order, within bounds
replay   tells from logged searches what a ranking would change, before any buyer sees it
"""
