"""Coverage-guided fuzzing of all code that takes bytes from outside.

    python -m benchmarks.fuzz --seconds 300                 every target, one after another (make fuzz)
    python -m benchmarks.fuzz --seconds 60 device_chain     some targets
    python -m benchmarks.fuzz --replay build/x device_chain run one file, without instrumentation
    python -m benchmarks.fuzz --seeds                       write the valid seeds of the corpus again

targets.py is the table of targets. corpus/<target>/ holds valid seeds and every input that once broke a target;
test_fuzz.py replays the corpus, and fuzzes each target for a moment.

Any input must lead to nothing but the project's own refusals, with sentences that can be displayed, never to a 500, and
must stay within the limits of time and memory in bounds.py. Only Python is instrumented; Rust and OpenSSL are observed
through their results. So mutation.py knows DER, PEM and base64, and changes certificates that still parse.
"""
