"""The engine `hosts`: machines of one's own are the nodes, each with the Docker engine that it has.

inventory    the file that names them
endpoint     how their Docker engines are reached: context, ssh, TLS, unix socket
facts        what each engine says of itself
tools        the one container that labkit runs on each, and the images
wire         what gets from each host to each other
judgement    all of that, judged: one row for each thing that was looked at
record       what was there before, so that `down` leaves each as it was found
leaving      how it does so
mending      what undoes a fault that is on one of them still
guard        which commands would cut a host off, and are not run
"""
