"""A broken scorer, for the checker's test: the last write to Redis wins, whatever its version."""

from __future__ import annotations

from stream import store
from stream.cli import main

_LAST_WINS = """
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[2], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
"""

if __name__ == "__main__":
    store._PUT = _LAST_WINS
    main()
