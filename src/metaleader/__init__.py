"""Online meta-learning: a learner that meets tasks one after another and learns to adapt faster with each."""
