"""The development stack: what `careloom up` starts on one machine, and stops again."""
