"""The online path, from an event to a record and a tip.

    consumer   takes records of listing.events, in order per key, and commits what is done
    scorer     brings one event to its end
      fetch      its photos, over HTTP (address: from which hosts)
      photo      checks their headers
      inference  scores them at Triton
      store      writes the Redis record
    kafka      produces the score or the dead letter
    worker     runs all of these as one process
    hints      turns scores into tips (tips: which, and in what words)

`embedded` brings real servers, `demo` shows it all, `cli` is the command line, `settings` every setting.
"""
