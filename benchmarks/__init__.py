"""Speed and memory of streamgeo beside other loaders, and beside what the machine can do at most."""
