"""Access to the target file system: layouts, staging, locks, free space, receipts."""
