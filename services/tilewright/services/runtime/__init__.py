"""What every service shares: settings, the worker loop, supervised child processes, the result store."""
