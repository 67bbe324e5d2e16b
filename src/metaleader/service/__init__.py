"""A learner that lives as a service of HTTP, and a client of it. It needs `pip install 'metaleader[serve]'`."""
