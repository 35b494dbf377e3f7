"""One harness for pgqueue and its peers: the same work, one result format. See README.md."""
