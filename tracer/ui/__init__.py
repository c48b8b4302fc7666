"""Rich renderables of snapshots and events: no BCC, no click, no session."""
