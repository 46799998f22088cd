"""Where thinking meets doing: the driver (one turn), the roster, processes, and the assembly of both wings."""
