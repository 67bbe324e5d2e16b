"""What metaleader takes in time and memory, next to what others take and to what was aimed at: `make bench`."""
