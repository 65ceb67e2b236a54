"""What a pack costs: the fit to packs that have run, and packs that an idle device runs for the first one."""
