"""From a configuration to a trained transport: parts, optimizer steps, the loop, snapshots, checkpoint."""
