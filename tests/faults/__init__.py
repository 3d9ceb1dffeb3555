"""A seeded fault harness for the whole pipeline, and a checker that reads only Kafka and Redis.

make faults ROUNDS=300 SEED=1
"""
