"""The whole house on one thread, one clock and one seed; and, beside it, real processes that are killed and counted."""
