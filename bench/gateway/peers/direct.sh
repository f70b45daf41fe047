#!/bin/bash
# No gateway: what `latency` is measured against. The load goes to the first upstream itself; this is only a process for the books.
exec sleep 600
