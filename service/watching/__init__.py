"""What may not end while a process serves, and what may not last: who notices, and what follows."""
