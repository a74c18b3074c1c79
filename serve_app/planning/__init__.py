"""What a fleet would cost and how fast it would answer: a discrete-event simulation, without a cluster."""
