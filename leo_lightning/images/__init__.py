"""Images: trees of classes on disk, and the data sets that become one."""
