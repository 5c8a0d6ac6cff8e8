"""Coverage-guided fuzzing of everything that takes bytes from outside.

    python -m tests.fuzz --seconds 300                 every target, one after the other (make fuzz)
    python -m tests.fuzz --seconds 60 device_chain     some
    python -m tests.fuzz --replay build/x device_chain what one file does, uninstrumented
    python -m tests.fuzz --seeds                       make the valid seeds of the corpus anew

targets.py is the table of targets; corpus/<target>/ holds valid seeds and whatever once broke a target;
test_fuzz.py replays it, and fuzzes each target for a moment.

Of any input: no exception but the project's own refusals, whose sentences can be shown; never a 500; and within the
limits of time and memory in tests/bounds.py. Only Python is instrumented: what Rust and OpenSSL do inside is seen by
what comes back, so mutation.py knows DER, PEM and base64, and changes certificates that still parse.
"""
