"""What may not end while a process serves: who notices when it does, and what follows."""
