"""The wing that thinks: pure steps over records. No I/O, no clock, no dice; agents meet only on topics."""
