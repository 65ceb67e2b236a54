"""`packlight serve` with a temporary folder of TEST_TMPFS_BYTES, mounted where nobody else sees it."""

import os
import sys

# Needs no root: user namespaces let anybody mount a tmpfs. Each command replaces the one before, so the pid stays.
MOUNT = 'mount -t tmpfs -o size="$TEST_TMPFS_BYTES" tmpfs "$TMPDIR" && exec "$@"'
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]

if __name__ == "__main__":
    serve = [sys.executable, "-m", "service", "serve", *sys.argv[1:]]
    os.execvp(UNSHARE[0], [*UNSHARE, "sh", "-c", MOUNT, "sh", *serve])
