"""The orchestrator: a pure reducer over run state, and the shell around it that any number of replicas may run."""
